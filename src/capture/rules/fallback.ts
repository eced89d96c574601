import { type Endpoint, endpointKey, type Ip, isIpv6 } from '../../model/address.ts';
import { type Instance, type Service, type ServiceName, servicePorts } from '../../model/service.ts';
import { emptySnapshot, type Snapshot } from '../../model/snapshot.ts';
import type { Family } from '../names.ts';
import { bitsOf, commonPrefix, networkText } from './address-bits.ts';
import type { Fragment } from './fragment.ts';

/*
 * Virtual addresses without the agent: what is sent to one of a permissive service and is not redirected goes to an
 * instance by DNAT, spread over the nearest ones. The rules stand also while the agent runs, behind those that
 * redirect: they are for whoever is not intercepted (allow-list, `capture.only`, `capture.percent`), and for the
 * moment after the kernel's own switch has found the workers dead. Strict services have none: refusals stand.
 */

/** Where a connection to one virtual address and port goes. */
export interface FallbackEntry {
  readonly virtual: Ip;
  readonly port: number;
  /** Of the same family, at least one; spread evenly. */
  readonly targets: readonly Endpoint[];
}

/** This host, as instances see it. */
export interface FallbackLocality {
  readonly node: string;
  readonly zone: string;
  /** In the order in which they are preferred; zones that are not named come last. */
  readonly otherZones: readonly string[];
}

/** Most instances that one virtual address is spread over: each is a rule. */
export const MAX_FALLBACK_TARGETS = 8;
/** Most DNAT rules of one family: iptables-nft takes 0.25 s to put 8,192 in, and 0.1 s to list them. */
export const MAX_FALLBACK_RULES = 8_192;
/** Entries of one chain before it is split by the next four bits of the address. */
const LEAF_ENTRIES = 32;
/** A chain's name has at most 28 characters. */
const MAX_DEPTH = 12;

const ROOT = 'MESH_VIRT';
const BRIDGES = 'MESH_VIRT_PRE';
const SOURCE = 'MESH_VIRT_SRC';

/** What a planner knows of one service. */
interface Known {
  readonly service: Service;
  readonly entries: readonly FallbackEntry[];
  /** The same as text: what has not changed is not told again. */
  readonly text: string;
}

/** New names that are put in their places one by one; more of them are sorted in. */
const FEW_NAMES = 64;

/**
 * The entries of every permissive service with a virtual address and a live instance of the same family. Cost follows
 * what changed from one snapshot to the next, and what there is room for: of 100,000 services most are only counted.
 */
export class FallbackPlanner {
  readonly #where: FallbackLocality;
  /** Services that may have entries, in order. */
  readonly #names: ServiceName[] = [];
  /** Of services that were looked at for entries. */
  readonly #known = new Map<ServiceName, Known>();
  #services: Snapshot['services'] = emptySnapshot.services;
  #entries: readonly FallbackEntry[] = [];
  /** So many names were looked at; the rest is `left`. */
  #looked = 0;
  #stale = false;

  constructor(where: FallbackLocality) {
    this.#where = where;
  }

  /** Services that found no room: connections to their virtual addresses are refused where nothing is redirected. */
  get left(): number {
    return this.#names.length - this.#looked;
  }

  /** Ordered by service name; the same value as before when nothing that matters has changed. */
  get entries(): readonly FallbackEntry[] {
    if (this.#stale) this.#collect();
    return this.#entries;
  }

  update(snapshot: Snapshot): void {
    const added: ServiceName[] = [];
    for (const [name, service] of snapshot.services.changesSince(this.#services)) {
      const before = this.#services.get(name);
      if (service !== undefined && isEligible(service)) {
        if (before === undefined || !isEligible(before)) added.push(name);
        else if (this.#known.has(name) && this.#look(service)) this.#stale = true;
      } else if (before !== undefined && isEligible(before)) {
        this.#names.splice(placeOf(this.#names, name), 1);
        this.#known.delete(name);
        this.#stale = true;
      }
    }
    if (added.length > FEW_NAMES) {
      for (const name of added) this.#names.push(name);
      this.#names.sort();
    } else for (const name of added) this.#names.splice(placeOf(this.#names, name), 0, name);
    if (added.length > 0) this.#stale = true;
    this.#services = snapshot.services;
  }

  /** Finds the entries of a service; true when they are others than before. */
  #look(service: Service): boolean {
    const before = this.#known.get(service.name);
    if (before?.service === service) return false;
    const entries = entriesOf(service, this.#where);
    const text = JSON.stringify(entries);
    const same = before?.text === text;
    this.#known.set(service.name, { service, entries: same ? before.entries : entries, text });
    return !same;
  }

  #collect(): void {
    const split: Record<Family, FallbackEntry[]> = { ipv4: [], ipv6: [] };
    this.#looked = 0;
    for (const name of this.#names) {
      const { ipv4, ipv6 } = split;
      if (Math.max(ipv4.length, ipv6.length) >= MAX_FALLBACK_RULES) break;
      this.#looked++;
      this.#look(this.#services.get(name)!);
      for (const entry of this.#known.get(name)!.entries) split[familyOf(entry.virtual)].push(entry);
    }
    const entries = [...bounded(split.ipv4), ...bounded(split.ipv6)];
    const same =
      entries.length === this.#entries.length && entries.every((entry, at) => entry === this.#entries[at]);
    if (!same) this.#entries = entries;
    this.#stale = false;
  }
}

const isEligible = ({ mode, virtual = [] }: Service): boolean => mode === 'permissive' && virtual.length > 0;

/** Where a name is, or belongs, among sorted ones. */
function placeOf(names: readonly ServiceName[], name: ServiceName): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (names[middle]! < name) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** As many entries as there may be rules, with fewer targets each where there are many. */
function bounded(entries: readonly FallbackEntry[]): readonly FallbackEntry[] {
  const rules = entries.reduce((sum, { targets }) => sum + targets.length, 0);
  if (rules <= MAX_FALLBACK_RULES) return entries;
  const kept = entries.slice(0, MAX_FALLBACK_RULES);
  const most = Math.max(1, Math.floor(MAX_FALLBACK_RULES / kept.length));
  return kept.map((entry) => (entry.targets.length <= most ? entry : shortened(entry, most)));
}

/** The last shortened form of an entry: the same value as long as it is as short. */
const short = new WeakMap<FallbackEntry, FallbackEntry>();

function shortened(entry: FallbackEntry, most: number): FallbackEntry {
  const before = short.get(entry);
  if (before?.targets.length === most) return before;
  const next = { ...entry, targets: entry.targets.slice(0, most) };
  short.set(entry, next);
  return next;
}

const familyOf = (ip: Ip): Family => (isIpv6(ip) ? 'ipv6' : 'ipv4');

function entriesOf(service: Service, where: FallbackLocality): readonly FallbackEntry[] {
  const { virtual = [] } = service;
  return virtual.flatMap((ip) => {
    const targets = nearest(service, familyOf(ip), where);
    if (targets.length === 0) return [];
    return servicePorts(service).map((port) => ({ virtual: ip, port, targets }));
  });
}

/**
 * Addresses of the live instances of the nearest zone that has any. Where there are more than needed, each host takes
 * others of them, so that hosts without an agent do not all turn to the same few.
 */
function nearest(service: Service, family: Family, where: FallbackLocality): readonly Endpoint[] {
  const live = service.instances.filter(
    ({ address, draining }) => !draining && familyOf(address.ip) === family,
  );
  const rank = ({ zone }: Instance): number => {
    if (zone === where.zone) return -1;
    const at = where.otherZones.indexOf(zone);
    return at < 0 ? where.otherZones.length : at;
  };
  const least = Math.min(...live.map(rank));
  const unique = new Map<string, Endpoint>();
  for (const instance of live)
    if (rank(instance) === least) unique.set(endpointKey(instance.address), instance.address);
  const drawn = [...unique].map(([key, address]) => ({ key, address, lot: lotOf(where.node, key) }));
  const order = (a: { readonly key: string }, b: { readonly key: string }): number =>
    a.key < b.key ? -1 : 1;
  return drawn
    .sort((a, b) => a.lot - b.lot || order(a, b))
    .slice(0, MAX_FALLBACK_TARGETS)
    .sort(order)
    .map(({ address }) => address);
}

/** FNV-1a: the same on every start, another one on every host. */
function lotOf(node: string, key: string): number {
  let hash = 0x811c9dc5;
  for (const text of [node, ' ', key])
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/**
 * The rules of one family. Every packet that is not for a virtual address leaves after one comparison; the others
 * walk a tree of chains, four bits of the address at each step. Undefined when there is no entry.
 */
export function fallbackRules(
  entries: readonly FallbackEntry[],
  family: Family,
  bridges: readonly string[],
): Fragment | undefined {
  const own = entries
    .filter(({ virtual }) => familyOf(virtual) === family)
    .map((entry) => ({ entry, bits: bitsOf(entry.virtual) }))
    .sort((a, b) => (a.bits < b.bits ? -1 : a.bits > b.bits ? 1 : a.entry.port - b.entry.port));
  if (own.length === 0) return undefined;
  const first = own[0]!.bits;
  const width = commonPrefix(first, own.at(-1)!.bits);
  const network = networkText(first, width, family);
  const chains = new Map<string, readonly string[]>();
  const grow = (name: string, leaves: readonly Leaf[], from: number): void => {
    const rules: string[] = name === ROOT && width > 0 ? [`! -d ${network} -j RETURN`] : [];
    chains.set(name, rules);
    if (
      leaves.length <= LEAF_ENTRIES ||
      from + 4 > first.length ||
      name.length >= ROOT.length + 1 + MAX_DEPTH
    ) {
      for (const { entry } of leaves) rules.push(...dnatRules(entry));
      return;
    }
    const branches = new Map<string, Leaf[]>();
    for (const leaf of leaves) {
      const nibble = leaf.bits.slice(from, from + 4);
      const below = branches.get(nibble);
      if (below === undefined) branches.set(nibble, [leaf]);
      else below.push(leaf);
    }
    for (const [nibble, below] of branches) {
      const digit = Number.parseInt(nibble, 2).toString(16).toUpperCase();
      const branch = name === ROOT ? `${ROOT}_${digit}` : `${name}${digit}`;
      rules.push(`-d ${networkText(below[0]!.bits, from + 4, family)} -j ${branch}`);
      grow(branch, below, from + 4);
    }
  };
  grow(ROOT, own, width - (width % 4));
  // The application asked for a way to lo, and may have been given an address that does not lead back from where it is
  // sent now.
  chains.set(SOURCE, [
    `! -o lo -m conntrack --ctstate DNAT${width > 0 ? ` --ctorigdst ${network}` : ''} -j MASQUERADE`,
  ]);
  const jumps: [string, string][] = [
    ['OUTPUT', ROOT],
    ['POSTROUTING', SOURCE],
  ];
  if (bridges.length > 0) {
    chains.set(
      BRIDGES,
      bridges.map((bridge) => `-i ${bridge} -j ${ROOT}`),
    );
    jumps.push(['PREROUTING', BRIDGES]);
  }
  return { table: 'nat', chains, jumps };
}

interface Leaf {
  readonly entry: FallbackEntry;
  readonly bits: string;
}

/** Every nth connection that comes to a rule is taken by it: evenly, and without a number that iptables rounds. */
function dnatRules({ virtual, port, targets }: FallbackEntry): string[] {
  const match = `-d ${virtual}/${isIpv6(virtual) ? 128 : 32} -p tcp -m tcp --dport ${port}`;
  return targets.map((target, at) => {
    const left = targets.length - at;
    const share = left === 1 ? '' : ` -m statistic --mode nth --every ${left} --packet 0`;
    return `${match}${share} -j DNAT --to-destination ${endpointKey(target)}`;
  });
}
