import { isDeepStrictEqual } from 'node:util';
import type { AllowListEntry } from '../../capture/allow-list.ts';
import {
  type Exemptions,
  noExemptions,
  type OnlyNames,
  resolveExemptions,
  type Surroundings,
  sameExemptions,
} from '../../capture/exemptions.ts';
import { cgroupMount, UnitCgroups } from '../../capture/unit-cgroups.ts';
import type { Config } from '../../config/schema.ts';
import { Passwd } from '../../io/passwd.ts';
import type { HostNameResolver, HostNames } from '../../naming/host-names.ts';

/** How often /etc/passwd is looked at while a list names users. */
const USER_POLL_MS = 1000;

/** pino's shape. */
interface ExemptionLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface ExemptionWatchOptions {
  /** Makes this a follower of the host's resolver. */
  readonly follow: (changed: () => void) => HostNames;
  /** How long the first list may wait for answers about its host names, milliseconds. */
  readonly patienceMs: number;
  readonly log: ExemptionLog;
  /** Told of the first exemptions, and then of others than before. */
  changed(exemptions: Exemptions): void;
  /** {@link ExemptionWatch.callers} are others than before. */
  callersChanged?(): void;
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
  readonly #names: HostNames;
  readonly #around: Surroundings;
  #list: readonly AllowListEntry[] = [];
  #only: OnlyNames = { users: [], units: [] };
  #current: Exemptions = noExemptions;
  #callers: OnlyNames = { users: [], units: [] };
  #hosts: ReadonlySet<string> = new Set();
  #poll: NodeJS.Timeout | undefined;
  /** The first list is held back until its host names had an answer: nothing of it should be captured meanwhile. */
  #first: 'none' | 'held' | 'told' = 'none';
  #patience: NodeJS.Timeout | undefined;

  constructor(options: ExemptionWatchOptions) {
    this.#options = options;
    this.#passwd = options.passwd ?? new Passwd();
    this.#units = new UnitCgroups(cgroupMount(), () => this.#refresh());
    const names = options.follow(() => this.#refresh());
    this.#names = names;
    this.#around = {
      addresses: (host) => names.addresses(host),
      hostProblem: (host) => names.problem(host),
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
    return this.#callers;
  }

  /** Takes another list. What can be looked up at once is, when it returns; `changed` is told if it differs. */
  setList(list: readonly AllowListEntry[]): void {
    this.#list = list;
    if (this.#first === 'none') {
      this.#first = 'held';
      this.#patience = setTimeout(() => this.#release(), this.#options.patienceMs);
    }
    this.#follow();
  }

  /** Takes other users and units of `capture.only`. */
  setOnly(only: OnlyNames): void {
    this.#only = only;
    this.#follow();
  }

  stop(): void {
    clearInterval(this.#poll);
    clearTimeout(this.#patience);
    this.#first = 'held';
    this.#units.stop();
    this.#names.close();
  }

  #follow(): void {
    const names = this.#list.flatMap((entry) => ('host' in entry ? [entry.host] : []));
    this.#hosts = new Set(names);
    this.#names.set(this.#hosts);
    this.#units.set(
      new Set([...this.#list.flatMap((entry) => ('unit' in entry ? [entry.unit] : [])), ...this.#only.units]),
    );
    const users = [
      ...this.#only.users,
      ...this.#list.flatMap((entry) => ('user' in entry ? [entry.user] : [])),
    ];
    clearInterval(this.#poll);
    if (users.length > 0) {
      this.#passwd.refresh();
      this.#poll = setInterval(() => {
        if (!this.#passwd.refresh()) return;
        this.#refresh();
        this.#nameCallers();
      }, USER_POLL_MS);
      this.#poll.unref();
    }
    this.#refresh();
    this.#nameCallers();
  }

  #nameCallers(): void {
    const callers = this.#namesOfCallers();
    if (isDeepStrictEqual(callers, this.#callers)) return;
    this.#callers = callers;
    this.#options.callersChanged?.();
  }

  #namesOfCallers(): OnlyNames {
    const users = this.#list.flatMap((entry) => ('user' in entry ? [entry.user] : []));
    return {
      users: [...new Set(users.flatMap((user) => [user, this.#passwd.nameOf(Number(user)) ?? user]))],
      units: this.#list.flatMap((entry) => ('unit' in entry ? [entry.unit] : [])),
    };
  }

  #refresh(): void {
    if (this.#first === 'held' && this.#answered()) this.#release();
    else if (this.#first === 'told') this.#resolve();
  }

  #release(): void {
    clearTimeout(this.#patience);
    this.#first = 'told';
    if (!this.#resolve()) this.#options.changed(this.#current);
  }

  /** True when `changed` was told. */
  #resolve(): boolean {
    const before = this.#current;
    const next = resolveExemptions(this.#list, this.#only, this.#around);
    if (sameExemptions(before, next)) return false;
    this.#current = next;
    const { log } = this.#options;
    for (const problem of next.problems)
      if (!before.problems.includes(problem)) log.warn({ problem }, 'allow-list: left out for now');
    for (const unit of next.waiting)
      if (!before.waiting.includes(unit)) log.info({ unit }, 'allow-list: the unit does not run now');
    this.#options.changed(next);
    return true;
  }

  #answered(): boolean {
    for (const name of this.#hosts)
      if (this.#names.addresses(name).length === 0 && this.#names.problem(name) === undefined) return false;
    return true;
  }
}

/** What a list and `capture.only` mean on this host now, for a command that ends: each host name is asked for once. */
export async function exemptionsNow(
  { capture, names }: Config,
  list: readonly AllowListEntry[],
  resolver: HostNameResolver,
): Promise<Exemptions> {
  const quiet = { info: () => undefined, warn: () => undefined };
  let told: (exemptions: Exemptions) => void = () => {};
  const exemptions = new Promise<Exemptions>((resolve) => {
    told = resolve;
  });
  const watch = new ExemptionWatch({
    follow: (changed) => resolver.follow(changed),
    patienceMs: names.resolveTimeout,
    log: quiet,
    changed: told,
  });
  watch.setOnly(capture.only);
  watch.setList(list);
  try {
    return await exemptions;
  } finally {
    watch.stop();
  }
}
