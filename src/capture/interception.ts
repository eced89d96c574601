import type { Config } from '../config/schema.ts';
import { reasonOf } from '../model/errors.ts';
import { withBackstop } from './backstop.ts';
import type { SetPlan } from './capture-plan.ts';
import { cgroupExists, withCgroups } from './cgroups.ts';
import { type CommandRunner, plainRunner } from './command.ts';
import type { FallbackInput } from './fallback-text.ts';
import { FlushWatch } from './flush-watch.ts';
import { type InterceptionState, StateMachine } from './interception-state.ts';
import { Kernel } from './kernel.ts';
import type { Family } from './names.ts';
import { type Backend, Netfilter } from './netfilter.ts';
import type { PlannedState } from './rules/fragment.ts';
import { type RuleBase, type RuleInput, ruleBase } from './rules/input.ts';
import { SerialQueue } from './serial.ts';
import { type Finding, isRemoval } from './verify.ts';

/** Where the room's log lines go; pino's shape. */
interface InterceptionLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface InterceptionOptions {
  readonly config: Pick<Config, 'capture' | 'names'>;
  /** Numeric user id whose traffic is never taken: the daemon's. */
  readonly uid: number;
  /** Ports the daemon listens on beside `capture.port`. */
  readonly ports: readonly number[];
  readonly log: InterceptionLog;
  readonly runner?: CommandRunner;
  /** Lock of iptables-legacy for a user that may not open /run/xtables.lock. */
  readonly lockFile?: string;
  /** Milliseconds that only grow; for tests. */
  readonly now?: () => number;
  /** Whether there is a control group of this path; for tests. */
  readonly cgroupExists?: (path: string) => boolean;
}

/** What the kernel is to hold, beside what the configuration says. Parts that did not change are the same values. */
export interface Wanted extends Omit<RuleInput, keyof RuleBase | 'backstop'> {
  readonly sets: SetPlan;
}

/** What was asked for last; a failed operation is tried again by `reassert`. */
type Intent = PlannedState | 'absent' | 'withdrawn-by-operator';

/** What `reassert` found and did. */
interface Reassertion {
  readonly findings: readonly Finding[];
  readonly action: 'none' | 'restored' | 'stayed-out';
}

/** What `status` tells. */
export interface InterceptionStatus {
  readonly state: InterceptionState;
  readonly mode: Config['capture']['mode'];
  readonly backend: Backend | undefined;
  /** Redirected destinations. */
  readonly destinations: Readonly<Record<Family, number>>;
  /** Addresses that only the agent may connect to: those of strict services. */
  readonly strict: Readonly<Record<Family, number>>;
  /** Addresses that are refused because nobody would answer. */
  readonly down: Readonly<Record<Family, number>>;
  readonly allowEntries: number;
  /** Times that rules were put back after somebody changed them. */
  readonly reasserted: number;
  /** Why the last operation failed; absent when it did not. */
  readonly lastError: string | undefined;
}

/**
 * Interception of this host: puts rules, sets and routes into the kernel, keeps them there, takes them out. Operations
 * run one after the other in the order of their calls; each is bounded in time. Errors are MeshErrors `system`.
 */
export class Interception {
  readonly #options: InterceptionOptions;
  readonly #runner: CommandRunner;
  readonly #machine: StateMachine;
  readonly #flushes: FlushWatch;
  readonly #exists: (path: string) => boolean;
  readonly #queue = new SerialQueue();
  #base: RuleBase;
  #config: Config['capture'];
  #kernel: Kernel | undefined;
  #wanted: Wanted | undefined;
  #intent: Intent = 'absent';
  #reasserted = 0;
  #lastError: string | undefined;

  constructor(options: InterceptionOptions) {
    this.#options = options;
    this.#runner = options.runner ?? plainRunner;
    this.#flushes = new FlushWatch(options.now);
    this.#exists = options.cgroupExists ?? cgroupExists;
    this.#config = options.config.capture;
    this.#base = ruleBase(options.config, options.uid, options.ports);
    this.#machine = new StateMachine((from, to, why) =>
      options.log.info({ from, to, why }, `interception: ${from} → ${to}`),
    );
  }

  /** Takes a new configuration; the next operation acts on it. Rejects as {@link ruleBase} throws, then nothing changes. */
  configure(config: Pick<Config, 'capture' | 'names'>): Promise<void> {
    return this.#queue.run(async () => {
      this.#base = ruleBase(config, this.#options.uid, this.#options.ports);
      const { backend, ipv6 } = this.#config;
      this.#config = config.capture;
      if (backend !== config.capture.backend || ipv6 !== config.capture.ipv6) this.#kernel = undefined;
    });
  }

  /**
   * Brings the kernel to the configuration and to this, whatever stands there. Cost follows what changed since the last
   * time. Ends a withdrawal, also an operator's. In modes that redirect nothing the rest stands.
   */
  apply(wanted: Wanted): Promise<void> {
    return this.#queue.run(() => this.#reach('applied', 'apply', wanted));
  }

  /** The fail-open flip: new connections go direct, live redirected ones go on, the rest stands. Safe to repeat. */
  withdraw(wanted?: Wanted): Promise<void> {
    return this.#queue.run(() => this.#reach('withdrawn', 'withdraw', wanted));
  }

  /** As `withdraw`, and what only makes sense while an agent runs goes, too: the last word of one that ends. */
  leave(): Promise<void> {
    return this.#queue.run(() => this.#reach('unattended', 'leave'));
  }

  /**
   * Takes every rule, chain, set and route of ours out. Live redirected connections are reset unless another NAT rule
   * stands: `withdraw` or `leave` first, and this when they have ended.
   */
  remove(): Promise<void> {
    return this.#queue.run(() => this.#reach('absent', 'remove'));
  }

  /**
   * Compares the kernel, every member of the sets included, with what a state of this would leave, and changes
   * nothing. For `mesh-node rules verify`, which runs beside the daemon that has applied it.
   */
  compare(wanted: Wanted, state: PlannedState = 'applied'): Promise<Finding[]> {
    return this.#queue.run(async () => {
      const kernel = await this.#open();
      const input = withCgroups(this.#rules(wanted, kernel.backend), this.#exists);
      return kernel.compareWith(state, input, wanted.sets);
    });
  }

  /** Compares the kernel with what was meant; `members` compares every member of the sets, not only their number. */
  verify(options: { readonly members?: boolean } = {}): Promise<Finding[]> {
    return this.#queue.run(async () => (await this.#open()).compare(options.members ?? false));
  }

  /**
   * Puts back what somebody changed. When rules were taken away three times within a minute, somebody means it: then
   * what redirects is withdrawn as well, nothing is put back any more, and only `apply` comes back. After a failed
   * operation it tries that one again.
   */
  reassert(): Promise<Reassertion> {
    return this.#queue.run(async () => {
      const { state } = this.#machine;
      if (state === 'failed') {
        await this.#reach(this.#intent, 'tried again');
        return { findings: [], action: 'restored' };
      }
      if (state === 'absent' || state === 'withdrawn-by-operator') return { findings: [], action: 'none' };
      const kernel = await this.#open();
      const findings = await kernel.compare(false);
      if (findings.length === 0) return { findings, action: 'none' };
      if (findings.some(isRemoval) && this.#flushes.isOneTooMany()) {
        await this.#reach('withdrawn-by-operator', 'rules were taken away three times within a minute');
        this.#options.log.warn(
          { findings },
          'interception: rules are taken away again and again; staying out',
        );
        return { findings, action: 'stayed-out' };
      }
      this.#options.log.warn({ findings }, 'interception: rules were changed by somebody else; putting back');
      kernel.distrust();
      await this.#reach(this.#intent, 'reassert');
      this.#reasserted++;
      return { findings, action: 'restored' };
    });
  }

  /** What was said last and where it goes: enough to say it to others. Undefined before something was to stand. */
  get said(): Pick<FallbackInput, 'rules' | 'sets' | 'backend'> | undefined {
    const backend = this.#kernel?.backend;
    if (this.#wanted === undefined || backend === undefined) return undefined;
    return { rules: this.#rules(this.#wanted, backend), sets: this.#wanted.sets, backend };
  }

  #rules({ sets, ...said }: Wanted, { backstop }: Backend): RuleInput {
    return withBackstop({ ...this.#base, ...said }, sets, backstop);
  }

  status(): InterceptionStatus {
    const none = { ipv4: 0, ipv6: 0 };
    return {
      state: this.#machine.state,
      mode: this.#config.mode,
      backend: this.#kernel?.backend,
      destinations: this.#kernel?.counts('redirect') ?? none,
      strict: this.#kernel?.counts('strict') ?? none,
      down: this.#kernel?.counts('down') ?? none,
      allowEntries: this.#wanted?.exempt.length ?? 0,
      reasserted: this.#reasserted,
      lastError: this.#lastError,
    };
  }

  async #open(): Promise<Kernel> {
    if (this.#kernel === undefined) {
      const { log, lockFile } = this.#options;
      const netfilter = await Netfilter.open(this.#config, this.#runner, lockFile);
      this.#kernel = new Kernel(netfilter);
      log.info({ backend: netfilter.backend }, 'interception: backend');
    }
    return this.#kernel;
  }

  /** Brings the kernel to what an intent means, and enters its state; a failure is kept for `status` and for `reassert`. */
  async #reach(intent: Intent, why: string, wanted = this.#wanted): Promise<void> {
    this.#intent = intent;
    this.#wanted = wanted;
    try {
      const kernel = await this.#open();
      if (intent === 'absent') await kernel.remove();
      else if (intent === 'withdrawn-by-operator') await kernel.stayOut();
      else if (wanted !== undefined) {
        await kernel.hold(intent, this.#rules(wanted, kernel.backend), wanted.sets, this.#exists);
      }
      this.#lastError = undefined;
    } catch (error) {
      this.#lastError = reasonOf(error);
      this.#kernel?.distrust();
      this.#machine.transition('failed', this.#lastError);
      throw error;
    }
    this.#machine.transition(this.#stateOf(intent), why);
  }

  #stateOf(intent: Intent): InterceptionState {
    if (intent === 'unattended') return 'withdrawn';
    return intent === 'applied' && this.#config.mode === 'off' ? 'withdrawn' : intent;
  }
}
