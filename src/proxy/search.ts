import { meansUnreached } from '../balance/outages.ts';
import { mayRetry } from '../balance/retry.ts';
import type { Channel, ChannelClose } from '../io/channel.ts';
import type { ConnectionPath, EndReason, FailedAttempt } from '../model/connection.ts';
import type { Subset } from '../model/policy.ts';
import type { Instance, Service } from '../model/service.ts';
import { connectionScope } from './connection-scope.ts';
import { CountedChannel } from './counted-channel.ts';
import type { Origin } from './origin.ts';
import {
  AGENT_CONNECTS,
  type AgentStream,
  type ConnectBreaker,
  type OpenedPath,
  type PickToken,
  type SearchDependencies,
} from './outbound-dependencies.ts';
import type { SearchJournal, SearchScope, SearchTarget, Seeker } from './seeker.ts';

/** Silent agents that one search passes by at once; further ones count as attempts. */
const MAX_SKIPPED = 16;

/**
 * The search for an upstream: instance after instance, with patience for their agents, for as long as no byte of the
 * caller can have reached an application, and in the end past the agents of a permissive service.
 */
export class UpstreamSearch {
  readonly #service: Service;
  /** Set when the caller named one instance by its own address. */
  readonly #only: Instance | undefined;
  readonly #origin: Origin;
  readonly #deps: SearchDependencies;
  readonly #journal: SearchJournal;
  readonly #seeker: Seeker;
  /** Bounds of the service, if it has any. */
  readonly #breaker: ConnectBreaker | undefined;
  /** It is one of those that wait for an instance. */
  #pending = false;
  readonly #scope: SearchScope;
  readonly #tried = new Set<Instance>();
  /** Those tried, and those to be avoided while there are others. */
  #avoided: Set<Instance> | undefined;
  /** Instances whose agent could not be reached: permissive services go to them directly in the end. */
  readonly #agentless: Instance[] = [];
  #upstream: Channel | undefined;
  #token: PickToken | undefined;
  #instance: Instance | undefined;
  /** What is tried next when the agent of this attempt is given up: another instance, or the same one once more. */
  #following: Instance | undefined;
  #repeat: Instance | undefined;
  #repeated = false;
  /** Attempts that count; those whose agent was known to be silent cost no time, and do not. */
  #attempts: number;
  #skipped = 0;
  /** The attempt was given up for want of an answer: of the agent, or of the instance in the time it has. */
  #late: 'agent' | 'instance' | undefined;
  /** Attempts that cost no time are nobody's retries. */
  #free = false;
  /** Every attempt so far says that its instance cannot be reached, and not that it, or this host, did not want to. */
  #unreached = true;
  #over = false;
  /** Takes the bound on an agent's answer back. */
  #patience: () => void = () => {};
  /** Takes the bound on reaching an instance back. */
  #connecting: () => void = () => {};

  constructor(
    target: SearchTarget,
    origin: Origin,
    deps: SearchDependencies,
    journal: SearchJournal,
    seeker: Seeker,
    scope: SearchScope = connectionScope(deps.policy(target.service.name), origin),
  ) {
    this.#service = target.service;
    this.#only = target.instance;
    this.#origin = origin;
    this.#deps = deps;
    this.#journal = journal;
    this.#seeker = seeker;
    this.#breaker = deps.breaker(target.service.name);
    this.#scope = scope;
    this.#attempts = scope.attempts ?? 0;
    if (scope.choice === undefined) this.#following = scope.first;
    if (scope.avoid !== undefined) this.#avoided = new Set(scope.avoid);
  }

  /** Attempts that count, those before this search included. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Whom another search after this one had better avoid. */
  get avoided(): ReadonlySet<Instance> {
    return this.#avoided ?? this.#tried;
  }

  /** Begins. The seeker may be told of the outcome before this returns. */
  start(): void {
    const { subset } = this.#scope.choice ?? {};
    const detail = subset === undefined ? 'no instance may be used' : `no instance of ${subsetText(subset)}`;
    this.#next('no-instance', detail, false);
  }

  /** The caller is gone. Nothing is told any more. */
  cancel(): void {
    if (this.#over) return;
    this.#settle();
    this.#upstream?.reset();
    this.#token?.finished();
  }

  /** The attempt at hand takes too long; another one follows if there may be one. */
  late(): void {
    if (this.#over || this.#upstream === undefined) return;
    this.#late = 'instance';
    this.#upstream.reset('timeout');
  }

  /** Tries the next instance; when none is left, the last failure is the caller's. */
  #next(reason: EndReason, detail: string | undefined, delivered: boolean): void {
    const instance = this.#candidate();
    // Where there is nobody to ask, nothing is taken from a budget.
    if (instance === undefined || !this.#permitted()) {
      this.#giveUp(reason, detail, delivered);
      return;
    }
    this.#attempts++;
    this.#tried.add(instance);
    this.#avoided?.add(instance);
    const reused = this.#seeker.reuse?.(this.#service, instance);
    if (reused === undefined) {
      if (this.#mayConnect()) this.#attempt(instance, this.#deps.open(this.#service, instance, this.#origin));
    } else {
      this.#settle();
      this.#note(instance, reused.path);
      this.#seeker.found({ channel: reused.channel, instance, token: reused.token, opened: undefined });
    }
  }

  #candidate(): Instance | undefined {
    const following = this.#following;
    if (following !== undefined) {
      this.#following = undefined;
      return following;
    }
    if (this.#only === undefined) {
      const instance = this.#pick();
      if (instance !== undefined) return instance;
    } else if (this.#tried.size === 0) return this.#only;
    const repeat = this.#repeat;
    if (repeat !== undefined) this.#repeated = true;
    this.#repeat = undefined;
    return repeat;
  }

  #pick(): Instance | undefined {
    if (this.#avoided !== undefined) {
      const other = this.#deps.pick(this.#service, this.#avoided, this.#scope.choice);
      if (other !== undefined) return other;
    }
    return this.#deps.pick(this.#service, this.#tried, this.#scope.choice);
  }

  /** No other instance is left, or may be tried: what remains is to go past an agent that cannot be reached. */
  #giveUp(reason: EndReason, detail: string | undefined, delivered: boolean): void {
    const service = this.#service;
    const bypass = service.mode === 'permissive' ? this.#agentless.shift() : undefined;
    if (bypass === undefined) {
      this.#fail(reason, detail, delivered);
      if (this.#unreached && this.#tried.size > 0) this.#deps.unreached(service, this.#tried, this.#only);
      return;
    }
    if (!this.#mayConnect()) return;
    const channel = this.#deps.past(service, bypass, this.#origin);
    this.#attempt(bypass, { channel, path: 'direct', viaAgent: false, past: true });
  }

  /** Whether the bounds of the service allow for one more connection; the search is over when they do not. */
  #mayConnect(): boolean {
    const breaker = this.#breaker;
    if (breaker === undefined) return true;
    this.#pending ||= breaker.tryAcquire('pending');
    if (this.#pending && breaker.tryAcquire('connections')) return true;
    this.#fail('overload', `circuit breaker: ${this.#pending ? 'connections' : 'pending'}`, false);
    return false;
  }

  /** The same way, counted for as long as it is open. */
  #counted(opened: OpenedPath): OpenedPath {
    const breaker = this.#breaker;
    if (breaker === undefined) return opened;
    const channel = new CountedChannel(opened.channel, () => breaker.release('connections'));
    return { ...opened, channel };
  }

  #settle(): void {
    this.#over = true;
    this.#patience();
    this.#connecting();
    if (this.#pending) this.#breaker!.release('pending');
    this.#pending = false;
  }

  #fail(reason: EndReason, detail: string | undefined, delivered: boolean): void {
    this.#settle();
    this.#seeker.failed(reason, detail, delivered);
  }

  #note(instance: Instance, path: ConnectionPath): void {
    const journal = this.#journal;
    journal.attempts++;
    journal.instance = instance.id;
    journal.zone = instance.zone;
    journal.path = path;
  }

  #noteFailure({ id }: Instance, path: ConnectionPath, why: ChannelClose): void {
    const failure: FailedAttempt = { instance: id, path, reason: reasonOf(why), detail: why.detail };
    if (this.#journal.failures === undefined) this.#journal.failures = [failure];
    else this.#journal.failures.push(failure);
  }

  #attempt(instance: Instance, way: OpenedPath): void {
    const opened = this.#counted(way);
    this.#note(instance, opened.path);
    this.#instance = instance;
    const token = this.#deps.started(this.#service, instance, opened.path, this.#journal.attempts);
    this.#token = token;
    this.#late = undefined;
    this.#free = false;
    this.#connect(opened, (closed) => {
      this.#patience();
      this.#connecting();
      const why = this.#late === undefined ? closed : tooLate(closed, this.#late);
      this.#noteFailure(instance, opened.path, why);
      const agentFailed = opened.viaAgent && why.source === 'peer' && why.reason !== 'denied';
      if (!meansUnreached(why.reason)) this.#unreached = false;
      // Nothing is known against the instance itself. One behind a relay has no route from here, so it is no way out.
      if (why.reason === 'tunnel-lost') this.#mayRepeat(opened.path);
      // The callee's agent does not let this caller in: nothing is known against the instance, and nobody else is asked.
      const isForbidden = why.reason === 'denied' && why.source === 'callee';
      if (!agentFailed && !isForbidden) token.failed();
      else if (opened.path === 'tunnel') this.#agentless.push(instance);
      token.finished();
      this.#token = undefined;
      if (why.delivered || isForbidden) this.#fail(reasonOf(why), why.detail, why.delivered);
      else if (opened.past !== true && this.#mayRetry(why)) this.#next(reasonOf(why), why.detail, false);
      else this.#giveUp(reasonOf(why), why.detail, false);
    });
    if (opened.viaAgent) this.#beginPatience(opened);
    else this.#boundConnect();
  }

  /** Settings bound a connection by themselves, policies here. */
  #boundConnect(): void {
    const bound = this.#connectTimeout;
    if (bound !== undefined && bound > 0) this.#connecting = this.#deps.after(bound, () => this.late());
  }

  /** What operators say; undefined: nothing. */
  get #connectTimeout(): number | undefined {
    return this.#scope.connectTimeout ?? this.#deps.policy(this.#service.name).timeouts?.connect;
  }

  /** A peer that is cut off answers nothing at all: its callers must not wait for the last timeout. */
  #beginPatience(opened: OpenedPath): void {
    const left = this.#deps.settings().agentPatience - (opened.agent?.silence ?? 0);
    if (left > 0) this.#patience = this.#deps.after(left, () => this.#patienceOver(opened));
    else {
      if (this.#skipped++ < MAX_SKIPPED) {
        this.#attempts--;
        this.#free = true;
      }
      this.#patienceOver(opened);
    }
  }

  /**
   * The agent has not answered in time. Where no byte of the caller has left and there is another way, the attempt is
   * given up; what may have been heard is never said twice, and waits for the agent or for the end of its tunnel.
   */
  #patienceOver({ agent, channel, path }: OpenedPath): void {
    const givesUp = agent?.bytesSent === 0 && this.#findsAnother(agent, path);
    agent?.doubt();
    if (givesUp) {
      this.#late = 'agent';
      channel.reset('timeout');
      return;
    }
    // An agent that lives and never answers: its caller believes that it is connected, and must not wait for ever.
    const bound = (this.#connectTimeout || this.#deps.settings().connectTimeout) * AGENT_CONNECTS;
    this.#patience = this.#deps.after(bound, () => {
      this.#late = 'agent';
      channel.reset('timeout');
    });
  }

  /** Whether anything may be tried instead of waiting for this agent; what it is is kept for `#next`. */
  #findsAnother(agent: AgentStream, path: ConnectionPath): boolean {
    const { mode } = this.#service;
    const past = mode === 'permissive' && (path === 'tunnel' || this.#agentless.length > 0);
    if (this.#attempts >= this.#most) return past;
    if (this.#only === undefined) this.#following = this.#pick();
    if (agent.doubtful) this.#mayRepeat(path);
    return past || this.#following !== undefined || this.#repeat !== undefined;
  }

  /** A tunnel in doubt gets no new stream: once, the same instance is asked through another one, where there is no way past. */
  #mayRepeat(path: ConnectionPath): void {
    const past = path === 'tunnel' && this.#service.mode === 'permissive';
    if (!past && !this.#repeated) this.#repeat = this.#instance;
  }

  get #most(): number {
    return this.#scope.most ?? this.#deps.settings().attempts;
  }

  #mayRetry(why: ChannelClose): boolean {
    return mayRetry({
      attempt: this.#attempts,
      maxAttempts: this.#most,
      delivered: why.delivered,
      code: why.reason === 'done' || why.reason === 'local' ? 'reset' : why.reason,
      source: why.source,
    });
  }

  /** The first attempt is nobody's retry. */
  #permitted(): boolean {
    const { permit } = this.#scope;
    return permit === undefined || this.#free || this.#tried.size === 0 || permit();
  }

  #connect(opened: OpenedPath, failed: (why: ChannelClose) => void): void {
    const { channel } = opened;
    this.#upstream = channel;
    channel.handler = {
      open: () => this.#opened(opened),
      data: () => {},
      end: () => {},
      drain: () => {},
      close: (why) => {
        if (this.#over) return;
        this.#upstream = undefined;
        failed(why);
      },
    };
    this.#seeker.trying(opened);
  }

  #opened(opened: OpenedPath): void {
    if (this.#over) return;
    this.#settle();
    const token = this.#token!;
    const instance = this.#instance!;
    token.connected();
    this.#deps.reached(this.#service, instance);
    this.#seeker.found({ channel: opened.channel, instance, token, opened });
  }
}

function tooLate(closed: ChannelClose, who: 'agent' | 'instance'): ChannelClose {
  const { delivered } = closed;
  if (who === 'instance') return { reason: 'timeout', delivered, detail: 'not reached in time' };
  return { reason: 'timeout', delivered, source: 'peer', detail: 'no answer from the agent in time' };
}

function subsetText(subset: Subset): string {
  return `subset ${Object.entries(subset)
    .map(([label, value]) => `${label}=${value}`)
    .join(',')}`;
}

/** What a close comes to for the caller. */
export function reasonOf(why: ChannelClose): EndReason {
  return why.reason === 'local' ? 'done' : why.reason;
}
