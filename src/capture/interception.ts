import type { Config } from '../config/schema.ts';
import type { EndpointKey } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import { type AllowList, parseProtected } from './allow-list.ts';
import { type CommandRunner, plainRunner } from './command.ts';
import { DestinationSets } from './destination-sets.ts';
import { type InterceptionState, StateMachine } from './interception-state.ts';
import { ownChains } from './live-table.ts';
import { type Family, families } from './names.ts';
import { type Backend, Netfilter } from './netfilter.ts';
import { planRules, type RuleInput, renderRemove, renderRules, renderWithdraw } from './rules.ts';
import { renderSet, splitFamilies } from './sets.ts';
import { compareTable, compareWithdrawn, type Finding, isRemoval } from './verify.ts';

/** Times that a restore is tried when another tool changes the table between our reading and our writing. */
const RESTORE_ATTEMPTS = 3;
/** Operations that may wait for their turn; the daemon never has more than a handful. */
const MAX_WAITING = 64;
/** So many foreign removals … */
const FLUSHES_RESPECTED = 3;
/** … within this time, and we stay out. */
const FLUSH_WINDOW_MS = 60_000;

/** Where the room's log lines go; pino's shape. */
export interface InterceptionLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface InterceptionOptions {
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

/** What `reassert` found and did. */
export interface Reassertion {
  readonly findings: readonly Finding[];
  readonly action: 'none' | 'restored' | 'stayed-out';
}

/** What `status` tells. */
export interface InterceptionStatus {
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

/** What is fed to the programs for one family, on a host without a trace of ours. */
export interface RenderedFamily {
  readonly family: Family;
  /** Input of `ipset restore`; empty when no set is needed. */
  readonly sets: string;
  /** Input of `iptables-restore --noflush` or `ip6tables-restore --noflush`; empty in mode `off`. */
  readonly rules: string;
}

/** What `mesh-node rules print` shows and `apply` feeds: byte for byte the same on a host without a trace of ours. */
export function renderAll(
  input: RuleInput,
  entries: Iterable<EndpointKey>,
  which: readonly Family[] = families,
): RenderedFamily[] {
  const split = splitFamilies(entries);
  return which.map((family) => ({
    family,
    sets: input.capture.mode === 'services' ? renderSet(family, split[family]) : '',
    rules: renderRules(planRules(input, family)),
  }));
}

/** The rules that follow from a configuration; throws a MeshError `configuration` when `protect` cannot be read. */
export function ruleInput(
  options: Pick<InterceptionOptions, 'config' | 'uid' | 'ports'>,
  allowList: AllowList,
): RuleInput {
  const { config, uid, ports } = options;
  return { capture: config, uid, ports, protected: parseProtected(config.protect), allowList };
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
  /** Set while a change of destinations or allow-list waits for its turn; later calls join it. */
  #waitingSets: Promise<void> | undefined;
  #waitingRules: Promise<void> | undefined;
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
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

  /** Takes a new configuration; the next `apply` acts on it. Throws as {@link ruleInput} does, then nothing changes. */
  configure(config: Config['capture']): void {
    this.#input = ruleInput({ ...this.#options, config }, this.#input.allowList);
    const { backend, ipv6 } = this.#config;
    this.#config = config;
    if (backend !== config.backend || ipv6 !== config.ipv6) this.#netfilter = undefined;
  }

  /**
   * Brings the kernel to the configuration, this allow-list and these destinations, whatever stands there. Ends a
   * withdrawal, also an operator's. With mode `off`, chains that stand are emptied.
   */
  apply(allowList: AllowList, entries: Iterable<EndpointKey>): Promise<void> {
    return this.#serial(async () => {
      this.#input = { ...this.#input, allowList };
      this.#wanted = [...entries];
      this.#flushes = [];
      await this.#applyAll('apply');
    });
  }

  /** Changes the redirected destinations: a few entries one by one, many by swap. Calls that wait are merged. */
  setDestinations(entries: Iterable<EndpointKey>): Promise<void> {
    this.#wanted = [...entries];
    this.#waitingSets ??= this.#serial(async () => {
      this.#waitingSets = undefined;
      if (this.#machine.state !== 'applied' || this.#config.mode !== 'services') return;
      await this.#guard(() => this.#sets!.set(this.#wanted));
    });
    return this.#waitingSets;
  }

  /** Changes the allow-list, in one commit for each family; not a jump is touched. Calls that wait are merged. */
  setAllowList(allowList: AllowList): Promise<void> {
    this.#input = { ...this.#input, allowList };
    this.#waitingRules ??= this.#serial(async () => {
      this.#waitingRules = undefined;
      if (this.#machine.state !== 'applied') return;
      await this.#guard(() => this.#restoreRules());
    });
    return this.#waitingRules;
  }

  /** Compares the kernel with what was meant; `members` compares every member of the sets, not only their number. */
  verify(options: { readonly members?: boolean } = {}): Promise<Finding[]> {
    return this.#serial(() => this.#verify(options.members ?? false));
  }

  /**
   * Puts back what somebody changed. When rules were taken away three times within a minute, somebody means it: then
   * the rest is withdrawn as well, and only `apply` comes back. In other states than `applied` it does nothing.
   */
  reassert(): Promise<Reassertion> {
    return this.#serial(async () => {
      if (this.#machine.state !== 'applied' && this.#machine.state !== 'failed') {
        return { findings: [], action: 'none' };
      }
      const findings = await this.#verify(false);
      if (findings.length === 0 && this.#machine.state === 'applied') return { findings, action: 'none' };
      const removals = findings.filter(isRemoval);
      if (removals.length > 0 && this.#machine.state === 'applied') {
        const now = this.#now();
        this.#flushes = [...this.#flushes.filter((at) => now - at < FLUSH_WINDOW_MS), now];
        if (this.#flushes.length >= FLUSHES_RESPECTED) {
          await this.#withdraw('withdrawn-by-operator', 'rules were taken away three times within a minute');
          return { findings, action: 'stayed-out' };
        }
      }
      this.#options.log.warn({ findings }, 'interception: rules were changed by somebody else; putting back');
      this.#sets?.distrust();
      await this.#applyAll('reassert');
      this.#reasserted++;
      return { findings, action: 'restored' };
    });
  }

  /** The fail-open flip: new connections go direct, live redirected ones go on. Safe to repeat. */
  withdraw(): Promise<void> {
    return this.#serial(() => this.#withdraw('withdrawn', 'withdraw'));
  }

  /**
   * Takes every rule, chain and set of ours out. Live redirected connections are reset unless another NAT rule
   * stands: `withdraw` first, and this when they have drained.
   */
  remove(): Promise<void> {
    return this.#serial(() =>
      this.#guard(async () => {
        const netfilter = await this.#open();
        for (const family of families) await this.#change(netfilter, family, renderRemove);
        await this.#sets!.destroy();
        this.#machine.transition('absent', 'remove');
      }),
    );
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

  /** Runs operations one after the other. */
  #serial<T>(operation: () => Promise<T>): Promise<T> {
    if (this.#waiting >= MAX_WAITING) {
      const message = `${MAX_WAITING} changes of the rules wait already`;
      return Promise.reject(new MeshError('overload', 'agent', message, { retry: 'safe' }));
    }
    this.#waiting++;
    const turn = this.#tail.then(operation).finally(() => {
      this.#waiting--;
    });
    this.#tail = turn.catch(() => undefined);
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

  /** Reads a table, renders the change, feeds it; again when the table changed in between. */
  async #change(
    netfilter: Netfilter,
    family: Family,
    render: (live: ReadonlyMap<string, readonly string[]>) => string,
  ): Promise<void> {
    const used = netfilter.backend.families.includes(family);
    for (let attempt = 1; ; attempt++) {
      try {
        const live = await netfilter.readTable(family);
        await netfilter.restore(family, render(live));
        return;
      } catch (error) {
        // A family that is not used and cannot even be read holds nothing of ours.
        if (!used) return;
        if (attempt === RESTORE_ATTEMPTS) throw error;
      }
    }
  }

  async #restoreRules(): Promise<void> {
    const netfilter = await this.#open();
    for (const family of families) {
      const used = netfilter.backend.families.includes(family);
      await this.#change(netfilter, family, (live) =>
        used ? renderRules(planRules(this.#input, family), live) : renderWithdraw(live),
      );
    }
  }

  async #applyAll(why: string): Promise<void> {
    await this.#guard(async () => {
      await this.#open();
      const { mode } = this.#config;
      if (mode === 'services') await this.#sets!.set(this.#wanted);
      await this.#restoreRules();
      if (mode !== 'services') await this.#sets!.destroy();
      this.#machine.transition(mode === 'off' ? 'withdrawn' : 'applied', why);
    });
  }

  #withdraw(state: 'withdrawn' | 'withdrawn-by-operator', why: string): Promise<void> {
    return this.#guard(async () => {
      const netfilter = await this.#open();
      for (const family of families) await this.#change(netfilter, family, renderWithdraw);
      this.#machine.transition(state, why);
      if (state === 'withdrawn-by-operator') this.#options.log.warn({ why }, 'interception: staying out');
    });
  }

  async #verify(members: boolean): Promise<Finding[]> {
    const netfilter = await this.#open();
    const findings: Finding[] = [];
    const { state } = this.#machine;
    for (const family of netfilter.backend.families) {
      const live = await netfilter.readTable(family);
      if (state === 'withdrawn' || state === 'withdrawn-by-operator') {
        findings.push(...compareWithdrawn(family, live));
      } else if (state === 'absent') {
        for (const subject of ownChains(live)) {
          findings.push({
            kind: 'leftover',
            family,
            subject,
            detail: 'nothing was applied, but it is there',
          });
        }
      } else findings.push(...compareTable(planRules(this.#input, family), live));
    }
    const standing = state === 'applied' || state === 'failed';
    if (standing && this.#config.mode === 'services') findings.push(...(await this.#sets!.compare(members)));
    return findings;
  }
}
