import type { Command, CommandResult, CommandRunner } from '../../../src/capture/command.ts';

/** A nat table and sets in memory, with as much of iptables-restore, iptables-save and ipset as we use. */
export class FakeKernel implements CommandRunner {
  readonly tables = { iptables: freshTable(), ip6tables: freshTable() };
  readonly sets = new Map<string, { options: string; members: Set<string> }>();
  readonly commands: Command[] = [];
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
    const family = program.startsWith('ip6tables') ? 'ip6tables' : 'iptables';
    if (program.endsWith('-save')) return saved(this.tables[family]);
    if (program.endsWith('-restore')) {
      this.tables[family] = restored(this.tables[family], input);
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
        this.sets.set(name, { options: line.slice(line.indexOf('family')), members: new Set() });
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
        if (saved(this.tables.iptables).includes(`${name} `)) refuse('in use by a kernel component');
        this.sets.delete(name);
      } else refuse(`unknown ${verb}`);
    }
  }
}

type Table = Map<string, string[]>;

function freshTable(): Table {
  return new Map(['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'].map((chain) => [chain, []]));
}

function saved(table: Table): string {
  const chains = [...table.keys()].map(
    (chain) => `:${chain} ${chain.startsWith('MESH') ? '-' : 'ACCEPT'} [0:0]\n`,
  );
  const rules = [...table].flatMap(([chain, list]) => list.map((rule) => `-A ${chain} ${rule}\n`));
  return `*nat\n${chains.join('')}${rules.join('')}COMMIT\n`;
}

/** All of it or nothing, as iptables-restore does. */
function restored(before: Table, input: string): Table {
  const table: Table = new Map([...before].map(([chain, rules]) => [chain, [...rules]]));
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
    else if (verb === '-I ') rules.unshift(rest.replace(/^1 /, ''));
    else if (verb === '-X ') table.delete(chain);
    else if (rules.includes(rest)) rules.splice(rules.indexOf(rest), 1);
    else refuse();
  }
  return table;
}
