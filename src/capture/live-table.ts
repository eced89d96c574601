import { OWN_PREFIX } from './names.ts';
import { type Table, tables } from './rules/fragment.ts';

/** A table as it stands in the kernel: rules of every chain in order, as iptables-save prints them, without `-A CHAIN`. */
export type LiveTable = ReadonlyMap<string, readonly string[]>;
/** The tables of one family. A table that is not loaded is absent. */
export type LiveTables = ReadonlyMap<Table, LiveTable>;

export const emptyTable: LiveTable = new Map<string, readonly string[]>();

/** Reads the output of `iptables-save`. Lines that it does not know are other tools' business and skipped. */
export function parseTables(saved: string): LiveTables {
  const live = new Map<Table, Map<string, string[]>>();
  let table = new Map<string, string[]>();
  const rulesOf = (chain: string): string[] => {
    const known = table.get(chain);
    if (known !== undefined) return known;
    const fresh: string[] = [];
    table.set(chain, fresh);
    return fresh;
  };
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) {
      table = new Map();
      const name = tables.find((known) => line === `*${known}`);
      if (name !== undefined) live.set(name, table);
      continue;
    }
    const declared = /^:(\S+) /.exec(line);
    if (declared !== null) rulesOf(declared[1]!);
    const rule = /^(?:\[\d+:\d+\] )?-A (\S+)(?: (.*))?$/.exec(line);
    if (rule !== null) rulesOf(rule[1]!).push((rule[2] ?? '').trim());
  }
  return live;
}

/** A value in quotes, as iptables-save writes it. */
const QUOTED = /"(?:[^"\\]|\\.)*"/g;

/** The chain that a rule jumps or goes to, if it is one of ours. */
function ownTarget(rule: string): string | undefined {
  // A comment may say anything, also what looks like a jump.
  const target = /(?:^| )-[jg] (\S+)/.exec(rule.replace(QUOTED, ''))?.[1];
  return target?.startsWith(OWN_PREFIX) ? target : undefined;
}

/** Chains of ours in a table. */
export function ownChains(table: LiveTable): string[] {
  return [...table.keys()].filter((chain) => chain.startsWith(OWN_PREFIX));
}

/** Every rule of somebody else's chain that leads to one of ours. */
export function ownJumps(table: LiveTable): { readonly chain: string; readonly rule: string }[] {
  const jumps: { chain: string; rule: string }[] = [];
  for (const [chain, rules] of table) {
    if (chain.startsWith(OWN_PREFIX)) continue;
    for (const rule of rules) if (ownTarget(rule) !== undefined) jumps.push({ chain, rule });
  }
  return jumps;
}

/**
 * A rule in one form, whatever backend and version printed it: options with their values, sorted, without what is
 * implied (`-m`, full prefixes) and without quotes. Equal texts mean equal rules, for the rules that we write.
 */
export function normalRule(rule: string): string {
  const options: string[] = [];
  let negated = false;
  for (const token of rule
    .replace(/--tcp-flags (?:FIN,SYN,RST,ACK|0x17\/0x02) ?(?:SYN)?/, '--syn')
    .replace(/"((?:[^"\\]|\\.)*)"/g, (_, quoted: string) => quoted.replace(/\\(.)/g, '$1'))
    .split(/\s+/)) {
    if (token === '') continue;
    if (token === '!') negated = true;
    else if (token.startsWith('-')) {
      options.push(negated ? `! ${token}` : token);
      negated = false;
    } else if (options.length > 0)
      options[options.length - 1] +=
        ` ${token.replace(/(\.\d+)\/32$/, '$1').replace(/(:[0-9a-f:]*)\/128$/, '$1')}`;
  }
  return options
    .filter((option) => !option.startsWith('-m '))
    .sort()
    .join(' ');
}
