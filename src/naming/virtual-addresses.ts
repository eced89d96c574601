import { hash } from 'node:crypto';
import { type Ip, isIpv6, parseIp } from '../model/address.ts';
import { parseServiceName, type ServiceName } from '../model/service.ts';
import { type AddressRange, addressOfBytes, hostMask, inRange } from './address-bytes.ts';

/** Places that are tried for one name. */
const MAX_PROBES = 256;
/** Share of a range that is given away: beyond it a free place takes long to find. */
const MAX_FULL = 0.9;
/** Names that are remembered, those that are gone included. */
const MAX_NAMES = 200_000;

/** One name and its addresses, as they are written down. */
export interface VirtualRecord {
  readonly name: ServiceName;
  readonly addresses: readonly Ip[];
  /** Since when nobody speaks of the service, milliseconds since the epoch; undefined while it is known. */
  readonly goneAt?: number | undefined;
}

/** Reads a record of unknown origin; undefined when it breaks a rule. */
export function parseVirtualRecord(value: unknown): VirtualRecord | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { name, addresses, goneAt } = value as Readonly<Record<string, unknown>>;
  const known = typeof name === 'string' ? parseServiceName(name) : undefined;
  if (known === undefined || !Array.isArray(addresses) || addresses.length > 2) return undefined;
  const ips = addresses.flatMap((text) => (typeof text === 'string' ? (parseIp(text) ?? []) : []));
  if (ips.length !== addresses.length || new Set(ips.map(isIpv6)).size !== ips.length) return undefined;
  const gone = goneAt ?? undefined;
  if (gone !== undefined && (typeof gone !== 'number' || !Number.isFinite(gone))) return undefined;
  return { name: known, addresses: ips, goneAt: gone };
}

interface VirtualAddressOptions {
  /** Absent: no addresses of this family. */
  readonly ipv4: AddressRange | undefined;
  readonly ipv6: AddressRange | undefined;
  /** Milliseconds for which an address is given to nobody after its service is gone. */
  readonly reuseAfter: number;
  /** Something is to be written down. */
  changed(): void;
  /** A service that gets no address of a family. Told once for each range. */
  exhausted(range: AddressRange): void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface Entry {
  addresses: readonly Ip[];
  goneAt: number | undefined;
}

/**
 * One virtual address of each family for each service. The address follows from the name, so that hosts agree without
 * talking; where two names meet, the later one goes elsewhere. What was given stays given.
 */
export class VirtualAddresses {
  readonly #options: VirtualAddressOptions;
  readonly #ranges: readonly AddressRange[];
  readonly #now: () => number;
  readonly #entries = new Map<ServiceName, Entry>();
  readonly #taken = new Set<Ip>();
  /** How many addresses of each range are given away. */
  readonly #given = new Map<AddressRange, number>();
  readonly #exhausted = new Set<AddressRange>();

  constructor(options: VirtualAddressOptions) {
    this.#options = options;
    this.#ranges = [options.ipv4, options.ipv6].filter((range) => range !== undefined);
    this.#now = options.now ?? Date.now;
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * Takes what was written down, before anything is given; may come in parts. Nobody has spoken of these services yet: one that nobody ever
   * speaks of again is gone from now on.
   */
  load(records: Iterable<VirtualRecord>): void {
    const now = this.#now();
    for (const { name, addresses, goneAt } of records) {
      if (this.#entries.has(name) || this.#entries.size >= MAX_NAMES) continue;
      // A clock that was wrong must not keep an address for ever.
      const gone = goneAt === undefined ? now : Math.min(goneAt, now);
      const kept = addresses.filter((ip) => {
        const range = this.#rangeOf(ip);
        return range !== undefined && !this.#taken.has(ip) && inRange(range, ip);
      });
      if (kept.length === 0 || gone + this.#options.reuseAfter <= now) continue;
      for (const ip of kept) this.#take(ip, this.#rangeOf(ip)!);
      this.#entries.set(name, { addresses: kept, goneAt: gone });
    }
  }

  /** The addresses of a service, IPv4 first; the same array as long as they are the same. */
  of(name: ServiceName): readonly Ip[] {
    const known = this.#entries.get(name);
    if (known !== undefined) {
      if (known.goneAt !== undefined) {
        known.goneAt = undefined;
        this.#complete(name, known);
        this.#options.changed();
      }
      return known.addresses;
    }
    if (this.#ranges.length === 0) return [];
    if (this.#entries.size >= MAX_NAMES && !this.#forgetOldest()) return [];
    const entry: Entry = { addresses: [], goneAt: undefined };
    this.#complete(name, entry);
    this.#entries.set(name, entry);
    this.#options.changed();
    return entry.addresses;
  }

  /** Nobody speaks of this service any more. */
  release(name: ServiceName): void {
    const entry = this.#entries.get(name);
    if (entry === undefined || entry.goneAt !== undefined) return;
    entry.goneAt = this.#now();
    this.#options.changed();
  }

  /** Releases all but these: what went while nobody listened. */
  releaseOthers(known: { has(name: ServiceName): boolean }): void {
    for (const name of this.#entries.keys()) if (!known.has(name)) this.release(name);
  }

  /** Addresses of services that are gone for long enough are free again. */
  sweep(): void {
    const past = this.#now() - this.#options.reuseAfter;
    for (const [name, { goneAt }] of this.#entries)
      if (goneAt !== undefined && goneAt <= past) this.#forget(name);
  }

  /** Everything, to be written down. */
  *records(): IterableIterator<VirtualRecord> {
    for (const [name, { addresses, goneAt }] of this.#entries) yield { name, addresses, goneAt };
  }

  /** Adds what the service lacks: all of it, or a family that this host did not have before. */
  #complete(name: ServiceName, entry: Entry): void {
    const missing = this.#ranges.filter(
      ({ base }) => !entry.addresses.some((ip) => isIpv6(ip) === (base.length === 16)),
    );
    if (missing.length === 0) return;
    const fresh = missing.flatMap((range) => this.#give(name, range) ?? []);
    entry.addresses = [...entry.addresses, ...fresh].sort((a, b) => Number(isIpv6(a)) - Number(isIpv6(b)));
  }

  #give(name: ServiceName, range: AddressRange): Ip | undefined {
    const given = this.#given.get(range) ?? 0;
    if (given < MAX_FULL * usableAddresses(range)) {
      for (let probe = 0; probe < MAX_PROBES; probe++) {
        const ip = candidate(range, name, probe);
        if (ip === undefined || this.#taken.has(ip)) continue;
        this.#take(ip, range);
        return ip;
      }
    }
    if (!this.#exhausted.has(range)) {
      this.#exhausted.add(range);
      this.#options.exhausted(range);
    }
    return undefined;
  }

  #take(ip: Ip, range: AddressRange): void {
    this.#taken.add(ip);
    this.#given.set(range, (this.#given.get(range) ?? 0) + 1);
  }

  #forget(name: ServiceName): void {
    for (const ip of this.#entries.get(name)?.addresses ?? []) {
      this.#taken.delete(ip);
      const range = this.#rangeOf(ip)!;
      this.#given.set(range, this.#given.get(range)! - 1);
      this.#exhausted.delete(range);
    }
    this.#entries.delete(name);
    this.#options.changed();
  }

  #forgetOldest(): boolean {
    let oldest: ServiceName | undefined;
    let since = Number.POSITIVE_INFINITY;
    for (const [name, { goneAt }] of this.#entries) {
      if (goneAt !== undefined && goneAt < since) [oldest, since] = [name, goneAt];
    }
    if (oldest !== undefined) this.#forget(oldest);
    return oldest !== undefined;
  }

  /** The range of the address's family. */
  #rangeOf(ip: Ip): AddressRange | undefined {
    const size = isIpv6(ip) ? 16 : 4;
    return this.#ranges.find(({ base }) => base.length === size);
  }
}

/** Addresses of a range that can be given: last bytes 0 and 255 are left out, and that of the self-test. */
function usableAddresses({ base, prefix }: AddressRange): number {
  return 2 ** Math.min(48, base.length * 8 - prefix - 8) * 254 - 1;
}

/**
 * The place of a name: the leading bits of SHA-256 over the name (over name, NUL and the number of the probe from the
 * second on), within the range. Undefined for places that look like a network or its broadcast address to somebody, and for
 * the one of the self-test (model/self-test.ts).
 */
function candidate(range: AddressRange, name: ServiceName, probe: number): Ip | undefined {
  const { base, prefix } = range;
  const digest = hash('sha256', probe === 0 ? name : `${name}\0${probe}`, 'buffer');
  const bytes = base.map((byte, i) => byte | (digest[i]! & hostMask(prefix, i)));
  const last = bytes.at(-1)!;
  if (last === 0 || last === 255) return undefined;
  if (last === 1 && bytes.every((byte, i) => i === bytes.length - 1 || byte === base[i])) return undefined;
  return addressOfBytes(bytes);
}
