import type { Config } from '../config/schema.ts';
import type { EndpointKey } from '../model/address.ts';
import type { AllowList } from './allow-list.ts';
import { type CommandRunner, plainRunner } from './command.ts';
import { DestinationSets } from './destination-sets.ts';
import { type InterceptionState, StateMachine } from './interception-state.ts';
import type { Family } from './names.ts';
import { type Backend, Netfilter } from './netfilter.ts';
import { ruleInput } from './rendered.ts';
import { planRules, type RuleInput, renderRemove, renderRules, renderWithdraw } from './rules.ts';
import { SerialQueue } from './serial.ts';
import { compareAbsent, compareTable, compareWithdrawn, type Finding, isRemoval } from './verify.ts';

export { type RenderedFamily, renderAll, ruleInput } from './rendered.ts';

/** So many foreign removals … */
const FLUSHES_RESPECTED = 3;
/** … within this time, and we stay out. */
const FLUSH_WINDOW_MS = 60_000;

/** Where the room's log lines go; pino's shape. */
interface InterceptionLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface InterceptionOptions {
  readonly config: Config['capture'];
  /** Numeric user id whose traffic is never taken: the daemon's. */
  readonly uid: number;
  /** Ports the daemon listens on beside `config.port`. */
  readonly ports: readonly number[];
  readonly log: InterceptionLog;
  readonly runner?: CommandRunner;
  /** Lock of iptables-legacy for a user that may not open /run/xtables.lock. */
  readonly lockFile?: string;
  /** Milliseconds that only grow; for tests. */
  readonly now?: () => number;
}

/** States that an operation aims at. */
type Intent = Exclude<InterceptionState, 'failed'>;

/** What `reassert` found and did. */
interface Reassertion {
  readonly findings: readonly Finding[];
  readonly action: 'none' | 'restored' | 'stayed-out';
}

/** What `status` tells. */
interface InterceptionStatus {
  readonly state: InterceptionState;
  readonly mode: Config['capture']['mode'];
  readonly backend: Backend | undefined;
  readonly destinations: Readonly<Record<Family, number>>;
  readonly allowEntries: number;
  /** Times that rules were put back after somebody changed them. */
  readonly reasserted: number;
  /** Why the last operation failed; absent when it did not. */
  readonly lastError: string | undefined;
}

/**
 * Interception of this host: puts rules and sets into the kernel, keeps them there, takes them out. Operations run
 * one after the other in the order of their calls; each is bounded in time. Errors are MeshErrors `system`.
 */
export class Interception {
  readonly #options: InterceptionOptions;
  readonly #runner: CommandRunner;
  readonly #machine: StateMachine;
  readonly #now: () => number;
  #config: Config['capture'];
  #input: RuleInput;
  #netfilter: Netfilter | undefined;
  #sets: DestinationSets | undefined;
  #wanted: readonly EndpointKey[] = [];
  /** Changes that wait for their turn; later ones of the same kind join them. */
  readonly #waiting = new Map<'sets' | 'rules', Promise<void>>();
  /** What the last operation was to reach; a failed one is tried again by `reassert`. */
  #intent: Intent = 'absent';
  readonly #queue = new SerialQueue();
  #flushes: number[] = [];
  #reasserted = 0;
  #lastError: string | undefined;

  constructor(options: InterceptionOptions) {
    this.#options = options;
    this.#runner = options.runner ?? plainRunner;
    this.#now = options.now ?? (() => performance.now());
    this.#config = options.config;
    this.#input = ruleInput(options, []);
    this.#machine = new StateMachine((from, to, why) =>
      options.log.info({ from, to, why }, `interception: ${from} → ${to}`),
    );
  }

  /** Takes a new configuration; the next `apply` acts on it. Rejects as {@link ruleInput} throws, then nothing changes. */
  configure(config: Config['capture']): Promise<void> {
    return this.#queue.run(async () => {
      this.#input = ruleInput({ ...this.#options, config }, this.#input.allowList);
      const { backend, ipv6 } = this.#config;
      this.#config = config;
      if (backend !== config.backend || ipv6 !== config.ipv6) this.#netfilter = undefined;
    });
  }

  /**
   * Brings the kernel to the configuration, this allow-list and these destinations, whatever stands there. Ends a
   * withdrawal, also an operator's. With mode `off`, chains that stand are emptied.
   */
  apply(allowList: AllowList, entries: Iterable<EndpointKey>): Promise<void> {
    this.#input = { ...this.#input, allowList };
    this.#wanted = [...entries];
    return this.#queue.run(() => {
      this.#flushes = [];
      return this.#reach('applied', 'apply');
    });
  }

  /** Changes the redirected destinations: a few entries one by one, many by swap. Calls that wait are merged. */
  setDestinations(entries: Iterable<EndpointKey>): Promise<void> {
    this.#wanted = [...entries];
    return this.#merged('sets', async () => {
      if (this.#machine.state !== 'applied' || this.#config.mode !== 'services') return;
      await this.#guard(() => this.#sets!.set(this.#wanted));
    });
  }

  /** Changes the allow-list, in one commit for each family; not a jump is touched. Calls that wait are merged. */
  setAllowList(allowList: AllowList): Promise<void> {
    this.#input = { ...this.#input, allowList };
    return this.#merged('rules', async () => {
      if (this.#machine.state !== 'applied') return;
      await this.#guard(() => this.#restoreRules());
    });
  }

  /**
   * Compares the kernel, every member of the sets included, with what `apply` of this would leave, and changes
   * nothing. For `mesh-node rules verify`, which runs beside the daemon that has applied it.
   */
  compare(allowList: AllowList, entries: Iterable<EndpointKey>): Promise<Finding[]> {
    const input = { ...this.#input, allowList };
    const wanted = [...entries];
    return this.#queue.run(async () => {
      const netfilter = await this.#open();
      const sets = new DestinationSets(netfilter);
      sets.assume(wanted);
      return this.#differences(this.#config.mode === 'off' ? 'withdrawn' : 'applied', input, sets, true);
    });
  }

  /** Compares the kernel with what was meant; `members` compares every member of the sets, not only their number. */
  verify(options: { readonly members?: boolean } = {}): Promise<Finding[]> {
    return this.#queue.run(() => this.#verify(options.members ?? false));
  }

  /**
   * Puts back what somebody changed. When rules were taken away three times within a minute, somebody means it: then
   * the rest is withdrawn as well, and only `apply` comes back. After a failed operation it tries that one again. In
   * the states `absent` and `withdrawn` it does nothing.
   */
  reassert(): Promise<Reassertion> {
    return this.#queue.run(async () => {
      if (this.#machine.state === 'failed') {
        await this.#reach(this.#intent, 'tried again');
        return { findings: [], action: 'restored' };
      }
      if (this.#machine.state !== 'applied') return { findings: [], action: 'none' };
      const findings = await this.#verify(false);
      if (findings.length === 0) return { findings, action: 'none' };
      if (findings.some(isRemoval) && this.#isRespectedFlush()) {
        await this.#reach('withdrawn-by-operator', 'rules were taken away three times within a minute');
        this.#options.log.warn(
          { findings },
          'interception: rules are taken away again and again; staying out',
        );
        return { findings, action: 'stayed-out' };
      }
      this.#options.log.warn({ findings }, 'interception: rules were changed by somebody else; putting back');
      this.#sets?.distrust();
      await this.#reach('applied', 'reassert');
      this.#reasserted++;
      return { findings, action: 'restored' };
    });
  }

  /** The fail-open flip: new connections go direct, live redirected ones go on. Safe to repeat. */
  withdraw(): Promise<void> {
    return this.#queue.run(() => this.#reach('withdrawn', 'withdraw'));
  }

  /**
   * Takes every rule, chain and set of ours out. Live redirected connections are reset unless another NAT rule
   * stands: `withdraw` first, and this when they have drained.
   */
  remove(): Promise<void> {
    return this.#queue.run(() => this.#reach('absent', 'remove'));
  }

  status(): InterceptionStatus {
    return {
      state: this.#machine.state,
      mode: this.#config.mode,
      backend: this.#netfilter?.backend,
      destinations: this.#sets?.counts() ?? { ipv4: 0, ipv6: 0 },
      allowEntries: this.#input.allowList.length,
      reasserted: this.#reasserted,
      lastError: this.#lastError,
    };
  }

  /** Runs a change that always takes the newest value: while one waits for its turn, later calls join it. */
  #merged(what: 'sets' | 'rules', change: () => Promise<void>): Promise<void> {
    const waiting = this.#waiting.get(what);
    if (waiting !== undefined) return waiting;
    const turn = this.#queue.run(() => {
      this.#waiting.delete(what);
      return change();
    });
    this.#waiting.set(what, turn);
    // When the queue is full, the change never runs: the next call must not join it.
    turn.catch(() => {
      if (this.#waiting.get(what) === turn) this.#waiting.delete(what);
    });
    return turn;
  }

  /** Runs a change; a failure is kept for `status` and leaves the state `failed`. */
  async #guard(change: () => Promise<void>): Promise<void> {
    try {
      await change();
      this.#lastError = undefined;
    } catch (error) {
      this.#lastError = error instanceof Error ? error.message : String(error);
      this.#sets?.distrust();
      this.#machine.transition('failed', this.#lastError);
      throw error;
    }
  }

  async #open(): Promise<Netfilter> {
    if (this.#netfilter === undefined) {
      this.#netfilter = await Netfilter.open(this.#config, this.#runner, this.#options.lockFile);
      this.#sets = new DestinationSets(this.#netfilter);
      this.#options.log.info({ backend: this.#netfilter.backend }, 'interception: backend');
    }
    return this.#netfilter;
  }

  async #restoreRules(): Promise<void> {
    const netfilter = await this.#open();
    await netfilter.change((live, family) =>
      netfilter.backend.families.includes(family)
        ? renderRules(planRules(this.#input, family), live)
        : renderWithdraw(live),
    );
  }

  /** Counts one more removal of our rules; true when it is one too many. */
  #isRespectedFlush(): boolean {
    const now = this.#now();
    this.#flushes = [...this.#flushes.filter((at) => now - at < FLUSH_WINDOW_MS), now];
    return this.#flushes.length >= FLUSHES_RESPECTED;
  }

  /** Brings the kernel to what a state means, and enters it. */
  #reach(intent: Intent, why: string): Promise<void> {
    this.#intent = intent;
    return this.#guard(async () => {
      const netfilter = await this.#open();
      const services = this.#config.mode === 'services';
      if (intent === 'applied') {
        if (services) await this.#sets!.set(this.#wanted);
        await this.#restoreRules();
        if (!services) await this.#sets!.destroy();
      } else {
        await netfilter.change(intent === 'absent' ? renderRemove : renderWithdraw);
        if (intent === 'absent') await this.#sets!.destroy();
      }
      if (intent === 'applied' && this.#config.mode === 'off') this.#intent = 'withdrawn';
      this.#machine.transition(this.#intent, why);
    });
  }

  async #verify(members: boolean): Promise<Finding[]> {
    await this.#open();
    return this.#differences(this.#intent, this.#input, this.#sets!, members);
  }

  async #differences(
    intent: Intent,
    input: RuleInput,
    sets: DestinationSets,
    members: boolean,
  ): Promise<Finding[]> {
    const netfilter = await this.#open();
    const findings: Finding[] = [];
    for (const family of netfilter.backend.families) {
      const live = await netfilter.readTable(family);
      if (intent === 'applied') findings.push(...compareTable(planRules(input, family), live));
      else if (intent === 'absent') findings.push(...compareAbsent(family, live));
      else findings.push(...compareWithdrawn(family, live));
    }
    if (intent === 'applied' && this.#config.mode === 'services')
      findings.push(...(await sets.compare(members)));
    return findings;
  }
}
