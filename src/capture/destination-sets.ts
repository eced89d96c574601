import type { EndpointKey } from '../model/address.ts';
import { type Family, families, setNames } from './names.ts';
import type { Netfilter } from './netfilter.ts';
import {
  type Destinations,
  difference,
  maxelemFor,
  renderChanges,
  renderSet,
  splitFamilies,
} from './sets.ts';
import type { Finding } from './verify.ts';

/** What we put into a set, as long as nothing casts doubt on it. */
interface KnownSet {
  readonly entries: Destinations;
  readonly maxelem: number;
}

/** Changes below this share of a set go in one by one; more of them cost as much as filling a second set. */
const SWAP_SHARE = 0.5;

/** The sets of redirected destinations in the kernel, and what they are believed to hold. */
export class DestinationSets {
  readonly #netfilter: Netfilter;
  readonly #known = new Map<Family, KnownSet>();

  constructor(netfilter: Netfilter) {
    this.#netfilter = netfilter;
  }

  /** Forgets what the sets are believed to hold: the next `set` fills them anew. */
  distrust(): void {
    this.#known.clear();
  }

  /** Takes it that another process has put these in, so that `compare` has something to compare with. */
  assume(entries: Iterable<EndpointKey>): void {
    const split = splitFamilies(entries);
    for (const family of this.#netfilter.backend.families) {
      // No room is assumed: the first change fills the set anew.
      this.#known.set(family, { entries: split[family], maxelem: 0 });
    }
  }

  counts(): Record<Family, number> {
    return {
      ipv4: this.#known.get('ipv4')?.entries.size ?? 0,
      ipv6: this.#known.get('ipv6')?.entries.size ?? 0,
    };
  }

  /** Makes the sets hold exactly these destinations, by the cheaper of two ways. */
  async set(entries: Iterable<EndpointKey>): Promise<void> {
    const split = splitFamilies(entries);
    for (const family of this.#netfilter.backend.families) {
      if (!(await this.#change(family, split[family]))) await this.#fill(family, split[family]);
    }
  }

  /** A few changes, one by one; false when a full set is the better way. */
  async #change(family: Family, entries: Destinations): Promise<boolean> {
    const known = this.#known.get(family);
    if (known === undefined || entries.size > known.maxelem) return false;
    const { added, removed } = difference(known.entries, entries);
    const changes = added.size + removed.size;
    if (changes > entries.size * SWAP_SHARE && changes > 1) return false;
    // Removals come second: a set that is nearly full must have room for both.
    if (known.entries.size + added.size > known.maxelem) return false;
    this.#known.delete(family);
    try {
      await this.#netfilter.restoreSets(renderChanges(family, added, removed), true);
    } catch {
      // Somebody destroyed or replaced the set: the full way says whether that can be mended.
      return false;
    }
    this.#known.set(family, { entries, maxelem: known.maxelem });
    return true;
  }

  async #fill(family: Family, entries: Destinations): Promise<void> {
    this.#known.delete(family);
    const existing = new Set((await this.#netfilter.readSets()).keys());
    await this.#netfilter.restoreSets(renderSet(family, entries, existing));
    this.#known.set(family, { entries, maxelem: maxelemFor(entries.size) });
  }

  /** Destroys the sets; no rule may name them any more. A host without ipset has none. */
  async destroy(): Promise<void> {
    this.#known.clear();
    const existing = await this.#netfilter.readSets().catch(() => new Map<string, unknown>());
    const names = families.flatMap((family) => [setNames[family].live, setNames[family].next]);
    const lines = names.filter((name) => existing.has(name)).map((name) => `destroy ${name}\n`);
    await this.#netfilter.restoreSets(lines.join(''));
  }

  /** What the kernel's sets hold beside what we put there; `members` compares each, not only their number. */
  async compare(members: boolean): Promise<Finding[]> {
    const findings: Finding[] = [];
    const existing = await this.#netfilter.readSets();
    for (const family of this.#netfilter.backend.families) {
      const subject = setNames[family].live;
      const live = existing.get(subject);
      const meant = this.#known.get(family)?.entries;
      if (live === undefined) {
        findings.push({ kind: 'set-missing', family, subject, detail: 'the set is gone' });
      } else if (meant !== undefined && live.members !== meant.size) {
        const detail = `${live.members} members, meant ${meant.size}`;
        findings.push({ kind: 'set-changed', family, subject, detail });
      } else if (meant !== undefined && members) {
        const listed = await this.#netfilter.readMembers(subject);
        const { added, removed } = difference(meant, listed);
        if (added.size + removed.size > 0) {
          const detail = `${added.size} members are not ours, ${removed.size} of ours are missing`;
          findings.push({ kind: 'set-changed', family, subject, detail });
        }
      }
    }
    return findings;
  }
}
