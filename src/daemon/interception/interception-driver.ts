import { isDeepStrictEqual } from 'node:util';
import type { AllowListEntry } from '../../capture/allow-list.ts';
import { AllowListWatch } from '../../capture/allow-list-watch.ts';
import { SetPlanner } from '../../capture/capture-plan.ts';
import type { CommandRunner } from '../../capture/command.ts';
import { type FallbackTexts, holdsWithoutAgent, renderFallback } from '../../capture/fallback-text.ts';
import { vouchForWorkers } from '../../capture/heartbeat.ts';
import { Interception, type InterceptionStatus, type Wanted } from '../../capture/interception.ts';
import type { Exemption, OnlyCallers } from '../../capture/rules/exemption.ts';
import type { FallbackLocality } from '../../capture/rules/fallback.ts';
import type { Config } from '../../config/schema.ts';
import type { EndpointKey } from '../../model/address.ts';
import type { Snapshot } from '../../model/snapshot.ts';
import type { Log } from '../../telemetry/log.ts';
import { nodeName } from '../host.ts';
import { ownPorts } from '../succession/listeners.ts';
import { coalesced } from './coalesced.ts';
import { FallbackCache } from './fallback-cache.ts';
import { ruleRunner } from './rule-runner.ts';

/** Why new connections go direct for a while, although the agent runs. */
export const suspensionReasons = [
  'nobody-serves', // no worker gives a sign of life
  'overload', // the agent measured that it does harm
  'disabled', // the operator said so: capture.disabledFile
] as const;
export type SuspensionReason = (typeof suspensionReasons)[number];

export interface InterceptionDriverOptions {
  readonly config: Config;
  readonly uid: number;
  readonly log: Log;
  /** Why interception is not as it should be; undefined when it is. */
  onHealth(problem: string | undefined): void;
  /** What this snapshot asks for stands now. */
  onApplied(version: number): void;
  /** A list that can be used; {@link InterceptionDriver.setExemptions} is to say what it means on this host. */
  onAllowList(entries: readonly AllowListEntry[]): void;
  /** Runs iptables, ipset and ip; for tests. */
  readonly runner?: CommandRunner;
  /** What has to hold without the agent may have changed; `render` says it in the words of the files. */
  onUnattended?(render: () => FallbackTexts | undefined): void;
}

/**
 * Keeps the rules of this host as they should be: what is to stand follows from what the workers have acknowledged, the
 * allow-list and the reasons to go direct; what others change is put back. At most one change is under way; what comes
 * meanwhile is taken together.
 */
export class InterceptionDriver {
  readonly #options: InterceptionDriverOptions;
  readonly #interception: Interception;
  readonly #fallback: FallbackCache;
  #config: Config;
  #planner: SetPlanner;
  #watch: AllowListWatch;
  #timer: NodeJS.Timeout | undefined;
  /** Undefined until there is a list that can be used: nothing may be captured that an operator meant to keep out. */
  #exempt: readonly Exemption[] | undefined;
  #only: OnlyCallers | undefined;
  #allowProblems: readonly string[] = [];
  /** Newest snapshot that every worker routes by. */
  #snapshot: Snapshot | undefined;
  #down: ReadonlySet<EndpointKey> = new Set();
  readonly #suspensions = new Set<SuspensionReason>();
  /** Brings the kernel to what is wanted now, or by the time that the change under way is over. */
  readonly #reconcile = coalesced(() => this.#pass());
  #begun = false;
  #stopped = false;
  /** An operator asked for interception, by a reload or by taking `disabled` back: that ends an operator's withdrawal. */
  #asked = false;

  constructor(options: InterceptionDriverOptions) {
    const { config, uid, log } = options;
    this.#options = options;
    this.#config = config;
    this.#interception = new Interception({
      config,
      uid,
      ports: ownPorts(config),
      log: log.child({ component: 'capture' }),
      runner: options.runner ?? ruleRunner,
      lockFile: `${config.daemon.runtimeDirectory}/xtables.lock`,
    });
    this.#planner = plannerFor(config);
    this.#only = nobodyYet(config);
    this.#fallback = new FallbackCache(localityOf(config), log, () => void this.#reconcile());
    this.#watch = this.#follow(config.capture.allowList);
  }

  /** `refusedAlone`: services whose virtual addresses are refused without the agent, for there are too many. */
  get status(): InterceptionStatus & {
    readonly allowListProblems: readonly string[];
    readonly refusedAlone: number;
  } {
    const allowListProblems = this.#allowProblems;
    return { ...this.#interception.status(), allowListProblems, refusedAlone: this.#fallback.left };
  }

  /** True once rules were put into the kernel. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Why new connections go direct now; empty when they are intercepted. */
  get suspensions(): readonly SuspensionReason[] {
    return [...this.#suspensions];
  }

  /** Reads the allow-list, before a first rule can stand. */
  async start(): Promise<void> {
    await this.#watch.start();
    this.#schedule();
  }

  /** Every worker routes by this snapshot: its addresses may be redirected. */
  acknowledged(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    void this.#reconcile();
  }

  /** Addresses that nobody answers at, by experience: they are refused in place of being redirected. */
  setDown(keys: ReadonlySet<EndpointKey>): void {
    this.#down = keys;
    void this.#reconcile();
  }

  /** What is never touched, and whose connections alone are (undefined: everybody's). */
  setExemptions(exempt: readonly Exemption[], only: OnlyCallers | undefined): void {
    this.#exempt = exempt;
    this.#only = only;
    void this.#reconcile();
  }

  /** Throws when the configuration cannot be used; then nothing changes. */
  async configure(config: Config): Promise<void> {
    if (this.#stopped) return;
    await this.#interception.configure(config);
    const before = this.#config;
    this.#config = config;
    if (!isDeepStrictEqual(before.capture.only.services, config.capture.only.services))
      this.#planner = plannerFor(config);
    this.#fallback.configure(localityOf(config));
    const file = config.capture.allowList;
    if (file !== before.capture.allowList) {
      this.#watch.stop();
      this.#watch = this.#follow(file);
      await this.#watch.start();
    }
    this.#schedule();
    await this.#watch.reload();
    this.#asked = true;
    await this.#reconcile();
  }

  /** New connections go direct until every reason for it is taken back. Resolves when they do. */
  async suspend(reason: SuspensionReason): Promise<void> {
    if (this.#suspensions.has(reason) || this.#stopped) return;
    this.#suspensions.add(reason);
    await this.#reconcile();
  }

  /** Takes one reason back. */
  async resume(reason: SuspensionReason): Promise<void> {
    if (!this.#suspensions.delete(reason) || this.#suspensions.size > 0) return;
    if (reason === 'disabled') this.#asked = true;
    await this.#reconcile();
  }

  /**
   * The agent ends: from now on new connections go direct, live ones go on, and what must hold without an agent holds
   * (strict services are refused, virtual addresses lead to instances).
   */
  async withdraw(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#watch.stop();
    this.#fallback.stop();
    await this.#reconcile();
  }

  /**
   * Takes everything out of the kernel where nothing has to hold without an agent: no strict service, no virtual
   * addresses. For after the last redirected connection has ended: it would be reset.
   */
  async remove(): Promise<void> {
    const { said } = this.#interception;
    const holds = said !== undefined && holdsWithoutAgent(said.rules.names, said.sets);
    if (this.#begun && !holds) await this.#run(() => this.#interception.remove());
  }

  #follow(file: string): AllowListWatch {
    const { log } = this.#options;
    return new AllowListWatch(file, {
      changed: (entries) => {
        this.#allowProblems = [];
        log.info({ file, entries: entries.length }, 'allow-list: in force');
        this.#options.onAllowList(entries);
      },
      rejected: (problems) => {
        this.#allowProblems = problems;
        const stays =
          this.#exempt === undefined ? 'nothing is captured without it' : 'the last good list stays';
        for (const problem of problems) log.error({ problem }, `allow-list: ${stays}`);
        if (this.#exempt === undefined) this.#options.onHealth('the allow-list cannot be used');
      },
      missing: (kept) => {
        log.info({ file, kept }, 'allow-list: no file');
        if (this.#exempt === undefined) this.#options.onAllowList([]);
      },
    });
  }

  /** Undefined until everything is known that rules depend on. */
  #wanted(): Wanted | undefined {
    const snapshot = this.#snapshot;
    if (snapshot === undefined || this.#exempt === undefined) return undefined;
    this.#planner.update(snapshot);
    const sets = this.#planner.setDown(this.#down);
    return {
      exempt: this.#exempt,
      only: this.#only,
      fallback: this.#fallback.of(snapshot),
      transparent: this.#planner.transparent,
      sets,
    };
  }

  async #pass(): Promise<void> {
    if (this.#stopped) {
      if (this.#begun) await this.#run(() => this.#interception.leave());
      return;
    }
    const wanted = this.#wanted();
    if (wanted === undefined) return;
    const version = this.#snapshot?.version;
    const suspended = this.#suspensions.size > 0;
    if (this.#interception.status().state === 'withdrawn-by-operator' && !this.#asked) return;
    this.#asked = suspended && this.#asked;
    this.#begun = true;
    const before = this.#interception.status().state;
    await this.#run(() =>
      suspended ? this.#interception.withdraw(wanted) : this.#interception.apply(wanted),
    );
    if (before !== 'applied' && this.#interception.status().state === 'applied')
      vouchForWorkers(this.#config.capture.port);
    this.#options.onUnattended?.(() => this.#unattended());
    if (version !== undefined && this.#interception.status().state !== 'failed')
      this.#options.onApplied(version);
  }

  #unattended(): FallbackTexts | undefined {
    const said = this.#interception.said;
    const snapshot = this.#snapshot;
    return said && snapshot && renderFallback({ ...said, snapshot });
  }

  #schedule(): void {
    clearInterval(this.#timer);
    if (this.#stopped) return;
    this.#timer = setInterval(() => {
      if (this.#begun && !this.#stopped) void this.#run(() => this.#interception.reassert());
    }, this.#config.capture.reassertInterval);
  }

  /** A failure is a state of health and no reason to fall: the next reassertion tries again. */
  async #run(change: () => Promise<unknown>): Promise<void> {
    try {
      await change();
    } catch (error) {
      this.#options.log.error({ error }, 'interception: change failed');
    }
    const { state, lastError } = this.#interception.status();
    if (state === 'failed') this.#options.onHealth(lastError ?? 'rules could not be applied');
    else if (state === 'withdrawn-by-operator')
      this.#options.onHealth('rules were taken away by the operator');
    else this.#options.onHealth(undefined);
  }
}

function plannerFor(config: Config): SetPlanner {
  return new SetPlanner({ node: nodeName(config), services: config.capture.only.services });
}

function localityOf(config: Config): FallbackLocality {
  const otherZones = config.zones.map(({ name }) => name);
  return { node: nodeName(config), zone: config.node.zone, otherZones };
}

/** With a choice of callers nobody is taken until it is known who they are. */
function nobodyYet({ capture }: Config): OnlyCallers | undefined {
  const { users, units } = capture.only;
  return users.length + units.length === 0 ? undefined : { uids: [], cgroups: [] };
}
