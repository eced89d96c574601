import type { ResponseHead } from '../http1/response-head.ts';
import type { Retries } from '../model/policy.ts';
import { compileText } from '../policy/match/text.ts';
import type { OutboundSettings } from '../proxy/outbound-dependencies.ts';

/** Methods of which doing it twice is doing it once (RFC 9110, 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

/** Doubling stops here: whatever the bounds are, it has passed them. */
const MAX_DOUBLINGS = 20;

/** An attempt that came to nothing after its instance had been reached. */
export interface LostAttempt {
  readonly condition: 'reset' | 'timeout';
  /** A byte of the request may have been heard. */
  readonly heard: boolean;
  /** It went on a channel from the pool, which its server may have closed at any time. */
  readonly reused: boolean;
}

/** May a request be asked again, how often and when. Compiled once from what an operator says. */
export class RetryRule {
  /** What it was made of; undefined: nobody has said anything, and no budget is kept. */
  readonly retries: Retries | undefined;
  /** Attempts in all, the first one included. */
  readonly attempts: number;
  /** Most content of a request that is kept for another attempt, in bytes. */
  readonly replayBuffer: number;
  /** Bound on one attempt, until the head of its answer, in ms; 0: none. */
  readonly perTryTimeout: number;
  /** Another instance may be tried where one cannot be reached. */
  readonly onConnectFailure: boolean;
  readonly #on: { readonly reset: boolean; readonly timeout: boolean };
  readonly #methods: ReadonlySet<string>;
  readonly #statuses: ReadonlySet<number>;
  readonly #headers: readonly ((head: ResponseHead) => boolean)[];

  private constructor(retries: Retries | undefined, { attempts, replayBuffer }: Bounds) {
    const on = (condition: Retries['on'][number]) => retries === undefined || retries.on.includes(condition);
    this.retries = retries;
    this.attempts = attempts;
    this.replayBuffer = replayBuffer;
    this.perTryTimeout = retries?.perTryTimeout ?? 0;
    this.onConnectFailure = on('connect-failure');
    this.#on = { reset: on('reset'), timeout: on('timeout') };
    this.#methods = retries === undefined ? IDEMPOTENT : new Set(retries.methods);
    this.#statuses = new Set(on('status') ? retries?.statuses : []);
    this.#headers = on('header') ? (retries?.headers ?? []).map(compileHeader) : [];
  }

  /** By a policy; the same rule for the same section of it. */
  static of(retries: Retries): RetryRule {
    let rule = rules.get(retries);
    if (rule === undefined) {
      rule = new RetryRule(retries, { ...retries, attempts: retries.attempts + 1 });
      rules.set(retries, rule);
    }
    return rule;
  }

  /** Without a policy: what was lost goes to another instance where doing it twice is doing it once, as in nginx. */
  static byDefault(settings: OutboundSettings): RetryRule {
    let rule = defaults.get(settings);
    if (rule === undefined) {
      rule = new RetryRule(undefined, settings);
      defaults.set(settings, rule);
    }
    return rule;
  }

  /** Whether this method may be asked again after it may have been heard. */
  repeats(method: string): boolean {
    return this.#methods.has(method);
  }

  /** An answer may make another attempt worth it. */
  get looksAtAnswers(): boolean {
    return this.#statuses.size > 0 || this.#headers.length > 0;
  }

  /** Whether a request that was lost may be asked again, `attempts` having been made. */
  coversLoss(method: string, { condition, heard, reused }: LostAttempt, attempts: number): boolean {
    if (heard && !this.repeats(method)) return false;
    // A channel from the pool may be closed just as a request goes out, which is nobody's failure.
    const stale = reused && condition === 'reset';
    if (attempts >= this.attempts && !(stale && this.retries === undefined)) return false;
    return stale || this.#on[condition] || (!heard && this.onConnectFailure);
  }

  /** Whether a request with this answer may be asked again, `attempts` having been made. */
  coversAnswer(method: string, head: ResponseHead, attempts: number): boolean {
    if (!this.looksAtAnswers || attempts >= this.attempts || !this.repeats(method)) return false;
    // What has switched to another protocol is no answer any more.
    if (head.framing.kind === 'opaque') return false;
    return this.#statuses.has(head.status) || this.#headers.some((matches) => matches(head));
  }

  /** How long to wait before this retry, from 1, in ms: full jitter over a bound that doubles. */
  backoff(retry: number, random: () => number): number {
    const bounds = this.retries?.backoff;
    if (bounds === undefined) return 0;
    return random() * Math.min(bounds.max, bounds.base * 2 ** Math.min(retry - 1, MAX_DOUBLINGS));
  }
}

type Bounds = Pick<OutboundSettings, 'attempts' | 'replayBuffer'>;

const rules = new WeakMap<Retries, RetryRule>();
const defaults = new WeakMap<OutboundSettings, RetryRule>();

function compileHeader({ name, match }: Retries['headers'][number]): (head: ResponseHead) => boolean {
  const matches = compileText(match);
  return ({ fields }) => matches(fields.joined(name));
}
