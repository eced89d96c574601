import type { Command, CommandResult, CommandRunner } from '../../../src/capture/command.ts';
import { type Table, tables } from '../../../src/capture/rules/fragment.ts';

/** Tables, sets and routes in memory, with as much of iptables-restore, iptables-save, ipset and ip as we use. */
export class FakeKernel implements CommandRunner {
  readonly families = { iptables: freshTables(), ip6tables: freshTables() };
  /** Routing entries of protocol 109, as `ip` prints them, by `-4 route`, `-6 rule` and so on. */
  readonly routes = new Map<string, string[]>();
  readonly sets = new Map<string, { options: string; members: Set<string> }>();
  readonly commands: Command[] = [];
  /** Those whose kernel has no security table: legacy says so when it is asked, nft when native rules bear that name. */
  readonly withoutSecurity = new Set<'iptables' | 'ip6tables'>();
  /** What `iptables --version` says. */
  version = 'iptables v1.8.9 (nf_tables)';
  /** Gives a failure for a command, or undefined to let it through. */
  fail: (command: Command) => Partial<CommandResult> | undefined = () => undefined;
  /** Most commands that ever ran at the same time. */
  mostAtOnce = 0;
  #running = 0;

  async run(command: Command): Promise<CommandResult> {
    this.commands.push(command);
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#running);
    await new Promise((resolve) => setImmediate(resolve));
    this.#running--;
    const failure = this.fail(command);
    if (failure !== undefined) return { code: 1, stdout: '', stderr: '', timedOut: false, ...failure };
    try {
      return { code: 0, stdout: this.#perform(command), stderr: '', timedOut: false };
    } catch (error) {
      return { code: 1, stdout: '', stderr: (error as Error).message, timedOut: false };
    }
  }

  /** Texts fed so far. */
  inputs(): string[] {
    return this.commands.flatMap((command) => (command.input === undefined ? [] : [command.input]));
  }

  #perform({ program, args, input = '' }: Command): string {
    if (args[0] === '--version') return `${this.version}\n`;
    if (program === 'ip') return this.#ip(args);
    const family = program.startsWith('ip6tables') ? 'ip6tables' : 'iptables';
    if (program.endsWith('-save')) {
      const names = args[0] === '-t' ? [args[1] as Table] : tables;
      return names.map((name) => this.#saved(family, name)).join('');
    }
    if (program.endsWith('-restore')) {
      for (const part of input.split(/^(?=\*)/m)) {
        const name = /^\*(\w+)/.exec(part)![1] as Table;
        if (this.#lacks(family, name)) throw new Error('iptables-restore: line 1 failed');
        this.families[family][name] = restored(this.families[family][name], part);
      }
      return '';
    }
    if (args[0] === 'list') {
      return [...this.sets]
        .map(
          ([name, { options, members }]) =>
            `Name: ${name}\nType: hash:ip,port\nHeader: ${options}\nNumber of entries: ${members.size}\n`,
        )
        .join('\n');
    }
    if (args[0] === 'save')
      return [...this.sets.get(args[1]!)!.members].map((m) => `add ${args[1]} ${m}\n`).join('');
    this.#sets(input, args.includes('-exist'));
    return '';
  }

  #lacks(family: 'iptables' | 'ip6tables', name: Table): boolean {
    return name === 'security' && this.withoutSecurity.has(family);
  }

  #saved(family: 'iptables' | 'ip6tables', name: Table): string {
    if (!this.#lacks(family, name)) return saved(name, this.families[family][name]);
    if (this.version.includes('legacy')) throw new Error('Table does not exist (do you need to insmod?)');
    return `# Table \`${name}' is incompatible, use 'nft' tool.\n`;
  }

  /** The nat table of IPv4. */
  get nat(): Chains {
    return this.families.iptables.nat;
  }

  #ip([family = '', kind = '', verb, ...rest]: readonly string[]): string {
    const key = `${family} ${kind}`;
    const entries = this.routes.get(key) ?? [];
    if (verb === 'show') return entries.map((entry) => `${entry}\n`).join('');
    const entry = rest.join(' ').replace(/ proto 109$/, kind === 'rule' ? ' proto 109' : '');
    if (verb === 'add') this.routes.set(key, [...entries, entry]);
    else if (entries.includes(entry))
      this.routes.set(
        key,
        entries.filter((other) => other !== entry),
      );
    else throw new Error('RTNETLINK answers: No such process');
    return '';
  }

  #sets(input: string, tolerant: boolean): void {
    for (const [index, line] of input.split('\n').entries()) {
      const [verb, name = '', value = ''] = line.split(' ');
      const refuse = (why: string): never => {
        throw new Error(`ipset v7.17: Error in line ${index + 1}: ${why}`);
      };
      const set = this.sets.get(name);
      if (verb === '') continue;
      if (verb === 'create') {
        if (set !== undefined) refuse('set with the same name already exists');
        this.sets.set(name, { options: line.split(' ').slice(3).join(' '), members: new Set() });
      } else if (set === undefined) refuse('The set with the given name does not exist');
      else if (verb === 'add') {
        if (!tolerant && set.members.has(value)) refuse('already added');
        set.members.add(value);
      } else if (verb === 'del') {
        if (!set.members.delete(value) && !tolerant) refuse('not added');
      } else if (verb === 'swap') {
        this.sets.set(name, this.sets.get(value)!);
        this.sets.set(value, set);
      } else if (verb === 'destroy') {
        const rules = tables.map((table) => saved(table, this.families.iptables[table])).join('');
        if (rules.includes(`${name} `)) refuse('in use by a kernel component');
        this.sets.delete(name);
      } else refuse(`unknown ${verb}`);
    }
  }
}

type Chains = Map<string, string[]>;

function freshTables(): Record<Table, Chains> {
  const builtin = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'];
  const fresh = (): Chains => new Map(builtin.map((chain) => [chain, []]));
  return { raw: fresh(), mangle: fresh(), nat: fresh(), filter: fresh(), security: fresh() };
}

function saved(name: Table, table: Chains): string {
  const chains = [...table.keys()].map(
    (chain) => `:${chain} ${chain.startsWith('MESH') ? '-' : 'ACCEPT'} [0:0]\n`,
  );
  const rules = [...table].flatMap(([chain, list]) => list.map((rule) => `-A ${chain} ${rule}\n`));
  return `*${name}\n${chains.join('')}${rules.join('')}COMMIT\n`;
}

/** All of it or nothing, as iptables-restore does. */
function restored(before: Chains, input: string): Chains {
  const table: Chains = new Map([...before].map(([chain, rules]) => [chain, [...rules]]));
  for (const [index, line] of input.split('\n').entries()) {
    const [, verb, chain = '', rest = ''] = /^(:|-[AIDX] )?(\S+) ?(.*)$/.exec(line) ?? [];
    const rules = table.get(chain);
    const refuse = (): never => {
      throw new Error(`iptables-restore: line ${index + 1} failed`);
    };
    if (verb === undefined) continue;
    if (verb === ':') table.set(chain, []);
    else if (rules === undefined) refuse();
    else if (verb === '-A ') rules.push(rest);
    else if (verb === '-I ') rules.splice(Number.parseInt(rest, 10) - 1, 0, rest.replace(/^\d+ /, ''));
    else if (verb === '-X ') table.delete(chain);
    else if (rules.includes(rest)) rules.splice(rules.indexOf(rest), 1);
    else refuse();
  }
  return table;
}
