import { readFile } from 'node:fs/promises';
import type { Config } from '../config/schema.ts';
import type { EndpointKey } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { Command, CommandResult, CommandRunner } from './command.ts';
import { type LiveTables, parseTables } from './live-table.ts';
import { type Family, families, OWN_PREFIX } from './names.ts';
import { tables } from './rules/fragment.ts';
import { parseMember } from './sets.ts';

/** Seconds that iptables may wait for another program's lock. */
const LOCK_WAIT_S = 5;
/** Bound on one run of a program; above the lock's wait, so that its own message is seen first. */
const RUN_TIMEOUT_MS = 10_000;
/** Bound on filling a set of a million members. */
const SET_TIMEOUT_MS = 60_000;

/** Times that a change is tried when another tool changes the table between our reading and our writing. */
const RESTORE_ATTEMPTS = 3;

/** Which iptables is used, found once and kept: rules in two backends shadow each other. */
export interface Backend {
  readonly kind: 'nft' | 'legacy';
  /** What `iptables --version` said. */
  readonly version: string;
  /** Without IPv6 nat there is no `ipv6`. */
  readonly families: readonly Family[];
  /** Why IPv6 is left out, if it is. */
  readonly withoutIpv6: string | undefined;
  /** Families that have the security table, which kernels may be built without. */
  readonly backstop: readonly Family[];
  /** Between `iptables` and `-restore`: `-nft`, `-legacy`, or nothing on versions before 1.8. */
  readonly variant: '-nft' | '-legacy' | '';
}

/** A set of ours, as the kernel lists it. */
interface LiveSet {
  /** Type and options. */
  readonly header: string;
  readonly members: number;
  readonly maxelem: number;
}

function systemError(what: string, result: CommandResult, input = ''): MeshError {
  const why = result.timedOut ? 'timed out and was killed' : `ended with ${result.code ?? 'a signal'}`;
  const line = Number(/line:? (\d+)/.exec(result.stderr)?.[1] ?? 0);
  const offending = input.split('\n')[line - 1];
  const at = line > 0 && offending !== undefined ? ` (line ${line}: ${offending})` : '';
  const said = result.stderr.trim().replace(/\s*\n\s*/g, '; ');
  return new MeshError('system', 'kernel', `${what} ${why}: ${said}${at}`, { retry: 'safe' });
}

/** Printed, with exit code 0, when another tool has put native nft rules into a table of that name. */
const INCOMPATIBLE = /^# Table [`'](\w+)['`] is incompatible.*$/gm;

async function readsOne(path: string): Promise<boolean> {
  return (await readFile(path, 'utf8').catch(() => '')).trim() === '1';
}

/** Reads and changes the kernel's tables, sets and routes through iptables, ipset and ip, each run bounded in time. */
export class Netfilter {
  readonly backend: Backend;
  readonly #runner: CommandRunner;
  readonly #environment: Readonly<Record<string, string>>;

  private constructor(
    backend: Backend,
    runner: CommandRunner,
    environment: Readonly<Record<string, string>>,
  ) {
    this.backend = backend;
    this.#runner = runner;
    this.#environment = environment;
  }

  /**
   * Finds the backend. `auto` takes what the `iptables` command is; iptables-legacy is never run to find out, since
   * one run of it creates the legacy tables and the next start would believe them. `lockFile` is for legacy under
   * a user that may not open /run/xtables.lock. Throws a MeshError `system` when there is no iptables.
   */
  static async open(
    capture: Pick<Config['capture'], 'backend' | 'ipv6'>,
    runner: CommandRunner,
    lockFile?: string,
  ): Promise<Netfilter> {
    const environment: Record<string, string> = lockFile === undefined ? {} : { XTABLES_LOCKFILE: lockFile };
    const program = capture.backend === 'auto' ? 'iptables' : `iptables-${capture.backend}`;
    const result = await runner.run({ program, args: ['--version'], environment, timeoutMs: RUN_TIMEOUT_MS });
    const version = /v(\d+)\.(\d+)[.\d]*(?: \((\w+)\))?/.exec(result.stdout);
    if (result.code !== 0 || version === null) throw systemError(`${program} --version`, result);
    const kind = version[3] === 'nf_tables' ? 'nft' : 'legacy';
    if (capture.backend !== 'auto' && kind !== capture.backend) {
      const message = `capture.backend is ${capture.backend}, but ${program} says ${version[0]}`;
      throw new MeshError('configuration', 'operator', message);
    }
    const variant = version[3] === undefined ? '' : kind === 'nft' ? '-nft' : '-legacy';
    const base: Backend = {
      kind,
      version: version[0],
      variant,
      families: ['ipv4'],
      withoutIpv6: undefined,
      backstop: [],
    };
    const ipv4 = new Netfilter(base, runner, environment);
    const withoutIpv6 = await ipv4.#withoutIpv6(capture.ipv6);
    const used: readonly Family[] = withoutIpv6 === undefined ? ['ipv4', 'ipv6'] : ['ipv4'];
    // Of a family that is not used any more, too: something of ours may stand there.
    const backstop: Family[] = [];
    for (const family of families) if (await ipv4.#hasSecurity(family)) backstop.push(family);
    return new Netfilter({ ...base, families: used, withoutIpv6, backstop }, runner, environment);
  }

  /**
   * Legacy says it when it is asked, and makes the table then. nft needs none, unless native rules bear that name; it
   * would make one, too, if it were asked for it by name.
   */
  async #hasSecurity(family: Family): Promise<boolean> {
    const args = this.backend.kind === 'nft' ? [] : ['-t', 'security'];
    return this.#run({ program: this.#program(family, 'save'), args }, RUN_TIMEOUT_MS).then(
      (saved) => ![...saved.matchAll(INCOMPATIBLE)].some(([, table]) => table === 'security'),
      () => false,
    );
  }

  async #withoutIpv6(wanted: Config['capture']['ipv6']): Promise<string | undefined> {
    if (wanted === 'on') return undefined;
    if (wanted === 'off') return 'capture.ipv6 is off';
    for (const scope of ['all', 'lo']) {
      if (await readsOne(`/proc/sys/net/ipv6/conf/${scope}/disable_ipv6`)) return `disable_ipv6 of ${scope}`;
    }
    if ((await readFile('/proc/net/if_inet6', 'utf8').catch(() => undefined)) === undefined) return 'no IPv6';
    return this.readTables('ipv6').then(
      () => undefined,
      (error: unknown) => `no IPv6 tables: ${reasonOf(error)}`,
    );
  }

  #program(family: Family, tool: 'restore' | 'save'): string {
    return `${family === 'ipv4' ? 'iptables' : 'ip6tables'}${this.backend.variant}-${tool}`;
  }

  async #run(command: Omit<Command, 'timeoutMs' | 'environment'>, timeoutMs: number): Promise<string> {
    const result = await this.#runner.run({ ...command, environment: this.#environment, timeoutMs });
    if (result.code !== 0) {
      throw systemError([command.program, ...command.args].join(' '), result, command.input);
    }
    return result.stdout;
  }

  /** The tables of one family; without the security table where there is none. */
  async readTables(family: Family): Promise<LiveTables> {
    const program = this.#program(family, 'save');
    const asked = tables.filter((table) => table !== 'security' || this.backend.backstop.includes(family));
    const save = (args: readonly string[]): Promise<string> => this.#run({ program, args }, RUN_TIMEOUT_MS);
    let saved = '';
    // Only root may ask iptables-legacy-save which tables there are.
    if (this.backend.kind === 'nft') saved = await save([]);
    else for (const table of asked) saved += await save(['-t', table]);
    for (const [line, table] of saved.matchAll(INCOMPATIBLE)) {
      if (asked.some((own) => own === table)) throw new MeshError('system', 'operator', line.slice(2));
    }
    return parseTables(saved);
  }

  /** Feeds `iptables-restore --noflush`: all of it or nothing. An empty text is nothing to do. */
  async #restore(family: Family, text: string): Promise<void> {
    if (text === '') return;
    const args = ['--noflush', '-w', String(LOCK_WAIT_S)];
    await this.#run({ program: this.#program(family, 'restore'), args, input: text }, RUN_TIMEOUT_MS);
  }

  /**
   * Changes both families: reads the tables, renders, feeds; again when another tool changed them in between, with the
   * number of the attempt and whether it is the last. The second family is changed also when the first cannot be (half
   * withdrawn is better than not at all); then it throws the first failure.
   */
  async change(render: (live: LiveTables, family: Family, last: boolean) => string): Promise<void> {
    const failures: unknown[] = [];
    for (const family of families) {
      await this.#changeFamily(family, (live, last) => render(live, family, last)).catch((error: unknown) =>
        failures.push(error),
      );
    }
    if (failures.length > 0) throw failures[0];
  }

  async #changeFamily(family: Family, render: (live: LiveTables, last: boolean) => string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const last = attempt === RESTORE_ATTEMPTS;
      try {
        const text = render(await this.readTables(family), last);
        await (last ? this.#restoreEach(family, text) : this.#restore(family, text));
        return;
      } catch (error) {
        // A family that is not used and cannot even be read holds nothing of ours.
        if (!this.backend.families.includes(family)) return;
        if (last) throw error;
      }
    }
  }

  /** Table by table, so that one that cannot be changed does not keep the others from it. */
  async #restoreEach(family: Family, text: string): Promise<void> {
    const failures: unknown[] = [];
    for (const part of text.split(/^(?=\*)/m)) {
      await this.#restore(family, part).catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Runs `ip -4` or `ip -6` and gives what it prints. */
  route(family: Family, args: readonly string[]): Promise<string> {
    const command = { program: 'ip', args: [family === 'ipv4' ? '-4' : '-6', ...args] };
    return this.#run(command, RUN_TIMEOUT_MS);
  }

  /** Feeds `ipset restore`; with `tolerant`, members that are there (or gone) already are no error. */
  async restoreSets(text: string, tolerant = false): Promise<void> {
    if (text === '') return;
    const args = tolerant ? ['-exist', 'restore'] : ['restore'];
    await this.#run({ program: 'ipset', args, input: text }, SET_TIMEOUT_MS);
  }

  /** The sets of ours, without their members. */
  async readSets(): Promise<ReadonlyMap<string, LiveSet>> {
    const listed = await this.#run({ program: 'ipset', args: ['list', '-terse'] }, RUN_TIMEOUT_MS);
    const sets = new Map<string, LiveSet>();
    for (const block of listed.split(/\n(?=Name: )/)) {
      const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1] ?? '';
      const name = field('Name');
      if (!name.startsWith(OWN_PREFIX)) continue;
      const header = `${field('Type')} ${field('Header')}`;
      const maxelem = Number(/maxelem (\d+)/.exec(header)?.[1] ?? 0);
      sets.set(name, { header, members: Number(field('Number of entries')), maxelem });
    }
    return sets;
  }

  /** The members of one set. What we would not have written is there in the kernel's own notation. */
  async readMembers(name: string): Promise<ReadonlySet<EndpointKey>> {
    const listed = await this.#run({ program: 'ipset', args: ['save', name] }, SET_TIMEOUT_MS);
    const members = new Set<EndpointKey>();
    for (const line of listed.split('\n')) {
      const added = /^add \S+ (\S+)/.exec(line);
      if (added === null) continue;
      members.add(parseMember(added[1]!) ?? (added[1] as EndpointKey));
    }
    return members;
  }
}
