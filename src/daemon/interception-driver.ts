import { type AllowList, isDestination } from '../capture/allow-list.ts';
import { AllowListWatch } from '../capture/allow-list-watch.ts';
import { redirectEntries } from '../capture/capture-plan.ts';
import { type CommandRunner, plainRunner } from '../capture/command.ts';
import { Interception } from '../capture/interception.ts';
import type { Config } from '../config/schema.ts';
import { type Capability, hasCapability, withAmbientCapabilities } from '../io/capabilities.ts';
import type { EndpointKey } from '../model/address.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { Log } from '../telemetry/log.ts';
import { ownPorts } from './listeners.ts';

/** What iptables and ipset need. RAW is asked for by iptables-legacy only. */
const RULE_CAPABILITIES: readonly Capability[] = ['CAP_NET_ADMIN', 'CAP_NET_RAW'];

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
  /** The destinations of this snapshot are redirected now. */
  onApplied(version: number): void;
}

/**
 * Keeps the rules of this host as they should be: destinations follow what the workers have acknowledged, the
 * allow-list follows its file, and what others change is put back.
 */
export class InterceptionDriver {
  readonly #options: InterceptionDriverOptions;
  readonly #interception: Interception;
  #config: Config;
  /** Undefined until there is a list that can be used: nothing may be captured that an operator meant to keep out. */
  #allowList: AllowList | undefined;
  #allowProblems: readonly string[] = [];
  #watch: AllowListWatch;
  #timer: NodeJS.Timeout | undefined;
  /** Newest snapshot that every worker routes by. */
  #snapshot: Snapshot | undefined;
  #updating = false;
  #stale = false;
  #begun = false;
  /** Withdrawn for as long as there is one. */
  readonly #suspensions = new Set<SuspensionReason>();
  #stopped = false;

  constructor(options: InterceptionDriverOptions) {
    const { config, uid, log } = options;
    this.#options = options;
    this.#config = config;
    this.#interception = new Interception({
      config: config.capture,
      uid,
      ports: ownPorts(config),
      log: log.child({ component: 'capture' }),
      runner: ruleRunner,
      lockFile: `${config.daemon.runtimeDirectory}/xtables.lock`,
    });
    this.#watch = this.#follow(config.capture.allowList);
  }

  get status(): ReturnType<Interception['status']> & { readonly allowListProblems: readonly string[] } {
    return { ...this.#interception.status(), allowListProblems: this.#allowProblems };
  }

  /** True once rules were put into the kernel. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Reads the allow-list, before a first rule can stand. */
  async start(): Promise<void> {
    await this.#watch.start();
    this.#schedule();
  }

  /** Every worker routes by this snapshot: its addresses may be redirected. */
  acknowledged(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    void this.#update();
  }

  /** Throws when the configuration cannot be used; then nothing changes. */
  async configure(config: Config): Promise<void> {
    if (this.#stopped) return;
    await this.#interception.configure(config.capture);
    const file = config.capture.allowList;
    if (file !== this.#config.capture.allowList) {
      this.#watch.stop();
      this.#watch = this.#follow(file);
      await this.#watch.start();
    }
    this.#config = config;
    this.#schedule();
    await this.#watch.reload();
    await this.#apply();
  }

  /** Why new connections go direct now; empty when they are intercepted. */
  get suspensions(): readonly SuspensionReason[] {
    return [...this.#suspensions];
  }

  /** New connections go direct until every reason for it is taken back. */
  async suspend(reason: SuspensionReason): Promise<void> {
    if (this.#suspensions.has(reason) || this.#stopped) return;
    this.#suspensions.add(reason);
    if (this.#begun && this.#suspensions.size === 1) await this.#run(() => this.#interception.withdraw());
  }

  /** Takes one reason back. */
  async resume(reason: SuspensionReason): Promise<void> {
    if (!this.#suspensions.delete(reason) || this.#suspensions.size > 0) return;
    await this.#apply();
  }

  /** Fail-open flip: from now on new connections go direct, live ones go on. */
  async withdraw(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#watch.stop();
    if (this.#begun) await this.#run(() => this.#interception.withdraw());
  }

  /** Takes everything out of the kernel; live redirected connections have ended by now. */
  async remove(): Promise<void> {
    if (this.#begun) await this.#run(() => this.#interception.remove());
  }

  async #apply(): Promise<void> {
    const allowList = this.#allowList;
    if (!this.#begun || this.#suspensions.size > 0 || this.#stopped || allowList === undefined) return;
    const version = this.#snapshot?.version;
    await this.#run(() => this.#interception.apply(allowList, this.#entries()));
    if (version !== undefined && this.#interception.status().state !== 'failed')
      this.#options.onApplied(version);
  }

  #follow(file: string): AllowListWatch {
    const { log } = this.#options;
    return new AllowListWatch(file, {
      changed: (entries) => {
        const list = entries.filter(isDestination);
        this.#allowList = list;
        this.#allowProblems = [];
        log.info({ file, entries: list.length }, 'allow-list: in force');
        if (this.#begun) void this.#run(() => this.#interception.setAllowList(list));
        else void this.#update();
      },
      rejected: (problems) => {
        this.#allowProblems = problems;
        const stays =
          this.#allowList === undefined ? 'nothing is captured without it' : 'the last good list stays';
        for (const problem of problems) log.error({ problem }, `allow-list: ${stays}`);
        if (this.#allowList === undefined) this.#options.onHealth('the allow-list cannot be used');
      },
      missing: (kept) => {
        this.#allowList ??= [];
        log.info({ file, kept }, 'allow-list: no file');
        if (!this.#begun) void this.#update();
      },
    });
  }

  #entries(): readonly EndpointKey[] {
    return this.#snapshot === undefined ? [] : redirectEntries(keysOf(this.#snapshot));
  }

  /** At most one change is under way; what comes meanwhile is taken together. */
  async #update(): Promise<void> {
    if (this.#updating) {
      this.#stale = true;
      return;
    }
    this.#updating = true;
    do {
      this.#stale = false;
      const allowList = this.#allowList;
      if (this.#stopped || this.#snapshot === undefined || allowList === undefined) break;
      const { version } = this.#snapshot;
      const entries = this.#entries();
      if (this.#suspensions.size > 0) break;
      if (this.#begun) await this.#run(() => this.#interception.setDestinations(entries));
      else {
        this.#begun = true;
        await this.#run(() => this.#interception.apply(allowList, entries));
      }
      if (this.#interception.status().state !== 'failed') this.#options.onApplied(version);
    } while (this.#stale);
    this.#updating = false;
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

function* keysOf(snapshot: Snapshot): Iterable<EndpointKey> {
  for (const [key] of snapshot.destinations) yield key;
}

/** Starts iptables and ipset with the capabilities that they need, and nothing else ever with any. */
const ruleRunner: CommandRunner = {
  run: (command) => {
    if (process.geteuid?.() === 0 || !hasCapability('CAP_NET_ADMIN')) return plainRunner.run(command);
    const held = RULE_CAPABILITIES.filter(hasCapability);
    return withAmbientCapabilities(held, () => plainRunner.run(command));
  },
};
