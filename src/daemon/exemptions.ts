import type { AllowListEntry } from '../capture/allow-list.ts';
import {
  type Exemptions,
  noExemptions,
  type OnlyNames,
  resolveExemptions,
  type Surroundings,
  sameExemptions,
} from '../capture/exemptions.ts';
import { cgroupMount, UnitCgroups } from '../capture/unit-cgroups.ts';
import { Passwd } from '../io/passwd.ts';
import type { HostNames } from '../naming/host-names.ts';
import type { Log } from '../telemetry/log.ts';

/** How often /etc/passwd is looked at while a list names users. */
const USER_POLL_MS = 1000;

interface ExemptionWatchOptions {
  /** A follower of the host's resolver; told of `changed` names, this is to be told by {@link ExemptionWatch.hostsChanged}. */
  readonly hosts: HostNames;
  readonly log: Pick<Log, 'info' | 'warn'>;
  /** Other exemptions than before. */
  changed(): void;
  readonly passwd?: Passwd;
}

/**
 * Keeps what the allow-list and `capture.only` mean on this host current: addresses of host names, numbers of users,
 * control groups of units.
 */
export class ExemptionWatch {
  readonly #options: ExemptionWatchOptions;
  readonly #passwd: Passwd;
  readonly #units: UnitCgroups;
  readonly #around: Surroundings;
  #list: readonly AllowListEntry[] = [];
  #only: OnlyNames = { users: [], units: [] };
  #current: Exemptions = noExemptions;
  #hosts: ReadonlySet<string> = new Set();
  #poll: NodeJS.Timeout | undefined;
  #settled: (() => void) | undefined;

  constructor(options: ExemptionWatchOptions) {
    this.#options = options;
    this.#passwd = options.passwd ?? new Passwd();
    this.#units = new UnitCgroups(cgroupMount(), () => this.#refresh());
    const { hosts } = options;
    this.#around = {
      addresses: (host) => hosts.addresses(host),
      hostProblem: (host) => hosts.problem(host),
      uidOf: (user) => this.#passwd.uidOf(user),
      cgroupOf: (unit) => this.#units.get(unit),
      hasUnits: this.#units.usable,
    };
  }

  get current(): Exemptions {
    return this.#current;
  }

  /** Names of the users and units of the list, for whoever knows a caller by name. */
  get callers(): OnlyNames {
    const users = this.#list.flatMap((entry) => ('user' in entry ? [entry.user] : []));
    return {
      users: users.flatMap((user) => [user, this.#passwd.nameOf(Number(user)) ?? user]),
      units: this.#list.flatMap((entry) => ('unit' in entry ? [entry.unit] : [])),
    };
  }

  /** Takes another list. What can be looked up at once is, when it returns; `changed` is told if it differs. */
  setList(list: readonly AllowListEntry[]): void {
    this.#list = list;
    this.#follow();
  }

  /** Takes other users and units of `capture.only`. */
  setOnly(only: OnlyNames): void {
    this.#only = only;
    this.#follow();
  }

  /** Host names of the list have other addresses. */
  hostsChanged(): void {
    this.#refresh();
  }

  /** Resolves when every host name has had an answer, good or bad, or after `timeoutMs`. */
  async settled(timeoutMs: number): Promise<void> {
    if (this.#unanswered() === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#settled = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#settled = undefined;
  }

  stop(): void {
    clearInterval(this.#poll);
    this.#units.stop();
    this.#options.hosts.close();
  }

  #follow(): void {
    const names = this.#list.flatMap((entry) => ('host' in entry ? [entry.host] : []));
    this.#hosts = new Set(names);
    this.#options.hosts.set(this.#hosts);
    this.#units.set(
      new Set([...this.#list.flatMap((entry) => ('unit' in entry ? [entry.unit] : [])), ...this.#only.units]),
    );
    const users = [
      ...this.#only.users,
      ...this.#list.flatMap((entry) => ('user' in entry ? [entry.user] : [])),
    ];
    clearInterval(this.#poll);
    if (users.some((user) => !/^\d+$/.test(user))) {
      this.#passwd.refresh();
      this.#poll = setInterval(() => {
        if (this.#passwd.refresh()) this.#refresh();
      }, USER_POLL_MS);
      this.#poll.unref();
    }
    this.#refresh();
  }

  #refresh(): void {
    const before = this.#current;
    const next = resolveExemptions(this.#list, this.#only, this.#around);
    if (this.#unanswered() === 0) this.#settled?.();
    if (sameExemptions(before, next)) return;
    this.#current = next;
    const { log } = this.#options;
    for (const problem of next.problems)
      if (!before.problems.includes(problem)) log.warn({ problem }, 'allow-list: left out for now');
    for (const unit of next.waiting)
      if (!before.waiting.includes(unit)) log.info({ unit }, 'allow-list: the unit does not run now');
    this.#options.changed();
  }

  #unanswered(): number {
    const { hosts } = this.#options;
    let count = 0;
    for (const name of this.#hosts)
      if (hosts.addresses(name).length === 0 && hosts.problem(name) === undefined) count++;
    return count;
  }
}
