import type { Family } from './names.ts';
import type { Netfilter } from './netfilter.ts';
import { ROUTE_PROTOCOL, type RouteEntry } from './rules/fragment.ts';
import type { Finding } from './verify.ts';

/** A routing entry of ours as the kernel lists it, in the words that also take it out. */
interface LiveRoute {
  readonly kind: RouteEntry['kind'];
  readonly words: readonly string[];
}

/** Words of a listed rule in the order in which it is written: `109: from all …` begins with its preference. */
function wordsOf(line: string): string[] {
  const words = line.trim().split(/\s+/);
  const preference = /^(\d+):$/.exec(words[0] ?? '');
  return preference === null ? words : ['pref', preference[1]!, ...words.slice(1)];
}

/** True when a listed entry says everything that is meant; the kernel adds words of its own (scope, metric). */
function isListed(spec: string, { words }: LiveRoute): boolean {
  const listed = ` ${words.join(' ')} `;
  const meant = spec.replace(` proto ${ROUTE_PROTOCOL}`, '').split(' ');
  // Without a keyword comes the destination (`local default`, `240.0.0.0/4`); then keywords with a value each.
  const first = meant.findIndex((word) => KEYWORDS.has(word));
  const head = meant.slice(0, first).join(' ');
  if (head !== '' && !listed.startsWith(` ${head} `)) return false;
  for (let at = first; at < meant.length; at += 2) {
    const pair = `${meant[at]} ${meant[at + 1]}`;
    if (pair !== 'table main' && !listed.includes(` ${pair} `)) return false;
  }
  return true;
}

const KEYWORDS = new Set(['dev', 'table', 'fwmark', 'lookup', 'pref', 'iif', 'from', 'to', 'metric']);

/** Routing entries of ours: found again by their protocol number, whoever put them in. */
export class Routes {
  readonly #netfilter: Netfilter;

  constructor(netfilter: Netfilter) {
    this.#netfilter = netfilter;
  }

  /** Makes the entries of one family exactly these. */
  async set(family: Family, wanted: readonly RouteEntry[]): Promise<void> {
    const live = await this.#read(family);
    for (const { kind, spec } of wanted) {
      if (live.some((entry) => entry.kind === kind && isListed(spec, entry))) continue;
      await this.#netfilter.route(family, [kind, 'add', ...spec.split(' ')]);
    }
    // Rules before routes: a rule that leads to an emptied table would be passed over, but only by luck.
    for (const kind of ['rule', 'route'] as const) {
      for (const entry of live) {
        if (entry.kind !== kind || wanted.some((meant) => meant.kind === kind && isListed(meant.spec, entry)))
          continue;
        const protocol = kind === 'route' ? ['proto', String(ROUTE_PROTOCOL)] : [];
        await this.#netfilter.route(family, [kind, 'del', ...entry.words, ...protocol]);
      }
    }
  }

  /** How the kernel differs from what is meant. */
  async compare(family: Family, wanted: readonly RouteEntry[]): Promise<Finding[]> {
    const live = await this.#read(family);
    const findings: Finding[] = [];
    for (const { kind, spec } of wanted) {
      if (live.some((entry) => entry.kind === kind && isListed(spec, entry))) continue;
      findings.push({ kind: 'route-missing', family, subject: kind, detail: `no ${kind} "${spec}"` });
    }
    for (const entry of live) {
      if (wanted.some((meant) => meant.kind === entry.kind && isListed(meant.spec, entry))) continue;
      const detail = `the ${entry.kind} "${entry.words.join(' ')}" is not meant`;
      findings.push({ kind: 'leftover', family, subject: entry.kind, detail });
    }
    return findings;
  }

  async #read(family: Family): Promise<LiveRoute[]> {
    const own = String(ROUTE_PROTOCOL);
    const routes = await this.#netfilter.route(family, ['route', 'show', 'table', 'all', 'proto', own]);
    // `ip rule show` filters by no protocol, whatever it is asked.
    const rules = await this.#netfilter.route(family, ['rule', 'show']);
    return [
      ...lines(routes).map((line) => ({ kind: 'route' as const, words: wordsOf(line) })),
      ...lines(rules)
        .filter((line) => ` ${line} `.includes(` proto ${own} `))
        .map((line) => ({ kind: 'rule' as const, words: wordsOf(line) })),
    ];
  }
}

const lines = (text: string): string[] => text.split('\n').filter((line) => line.trim() !== '');
