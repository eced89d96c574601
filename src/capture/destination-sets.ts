import type { Destinations, SetPlan } from './capture-plan.ts';
import { type Family, families, type SetRole, setNames, setRoles } from './names.ts';
import type { Netfilter } from './netfilter.ts';
import { checkSize, difference, maxelemFor, renderChanges, renderSet } from './sets.ts';
import type { Finding } from './verify.ts';

/** What we put into a set, as long as nothing casts doubt on it. */
interface KnownSet {
  readonly entries: Destinations;
  readonly maxelem: number;
}

/** Changes below this share of a set go in one by one; more of them cost as much as filling a second set. */
const SWAP_SHARE = 0.5;

/** The sets of destinations in the kernel, and what they are believed to hold. */
export class DestinationSets {
  readonly #netfilter: Netfilter;
  readonly #known = new Map<string, KnownSet>();

  constructor(netfilter: Netfilter) {
    this.#netfilter = netfilter;
  }

  /** Forgets what the sets are believed to hold: the next `set` fills them anew. */
  distrust(): void {
    this.#known.clear();
  }

  /** Takes it that another process has put these in, so that `compare` has something to compare with. */
  assume(plan: SetPlan, roles: readonly SetRole[]): void {
    for (const role of roles) {
      for (const family of this.#netfilter.backend.families) {
        // No room is assumed: the first change fills the set anew.
        this.#known.set(setNames(role, family).live, { entries: plan[role][family], maxelem: 0 });
      }
    }
  }

  counts(role: SetRole): Record<Family, number> {
    const count = (family: Family): number => this.#known.get(setNames(role, family).live)?.entries.size ?? 0;
    return { ipv4: count('ipv4'), ipv6: count('ipv6') };
  }

  /**
   * Makes the sets of these roles hold what is planned, each by the cheaper of two ways: filled anew, or a few changes one
   * by one. All sets of a family take one run of ipset for each way.
   */
  async set(plan: SetPlan, roles: readonly SetRole[]): Promise<void> {
    const ordered = setRoles.filter((role) => roles.includes(role));
    for (const family of this.#netfilter.backend.families) {
      const fill = new Set<SetRole>();
      const change = new Map<SetRole, string>();
      for (const role of ordered) {
        checkSize(setNames(role, family).live, plan[role][family]);
        const changes = this.#changes(role, family, plan[role][family]);
        if (changes === undefined) fill.add(role);
        else if (changes !== '') change.set(role, changes);
      }
      const changed = await this.#change(family, plan, change);
      if (!changed) for (const role of change.keys()) fill.add(role);
      if (fill.size > 0)
        await this.#fill(
          family,
          plan,
          setRoles.filter((role) => fill.has(role)),
        );
    }
  }

  /** A few changes as ipset takes them, empty for none; undefined when a full set is the better way. */
  #changes(role: SetRole, family: Family, entries: Destinations): string | undefined {
    const known = this.#known.get(setNames(role, family).live);
    if (known?.entries === entries) return '';
    if (known === undefined || entries.size > known.maxelem) return undefined;
    const changes = difference(known.entries, entries);
    const count = changes.added.length + changes.removed.length;
    if (count > entries.size * SWAP_SHARE && count > 1) return undefined;
    if (known.entries.size + changes.added.length > known.maxelem) return undefined;
    return renderChanges(role, family, changes);
  }

  /** False when somebody destroyed or replaced a set: the full way says whether that can be mended. */
  async #change(family: Family, plan: SetPlan, texts: ReadonlyMap<SetRole, string>): Promise<boolean> {
    const known = new Map<string, KnownSet>();
    for (const role of texts.keys()) {
      const { live } = setNames(role, family);
      known.set(live, { entries: plan[role][family], maxelem: this.#known.get(live)?.maxelem ?? 0 });
      this.#known.delete(live);
    }
    try {
      await this.#netfilter.restoreSets([...texts.values()].join(''), true);
    } catch {
      return false;
    }
    for (const [live, set] of known) this.#known.set(live, set);
    return true;
  }

  async #fill(family: Family, plan: SetPlan, roles: readonly SetRole[]): Promise<void> {
    for (const role of roles) this.#known.delete(setNames(role, family).live);
    const existing = new Set((await this.#netfilter.readSets()).keys());
    const texts = roles.map((role) => renderSet(role, family, plan[role][family], existing));
    await this.#netfilter.restoreSets(texts.join(''));
    for (const role of roles) {
      const entries = plan[role][family];
      this.#known.set(setNames(role, family).live, { entries, maxelem: maxelemFor(entries.size) });
    }
  }

  /** Destroys the sets of all roles but these; no rule may name them any more. A host without ipset has none. */
  async keepOnly(roles: readonly SetRole[]): Promise<void> {
    const kept = roles.flatMap((role) => families.map((family) => setNames(role, family).live));
    for (const name of this.#known.keys()) if (!kept.includes(name)) this.#known.delete(name);
    // Of whatever version: everything that is called as ours are.
    const existing = await this.#netfilter.readSets().catch(() => new Map<string, unknown>());
    const lines = [...existing.keys()]
      .filter((name) => !kept.includes(name))
      .map((name) => `destroy ${name}\n`);
    await this.#netfilter.restoreSets(lines.join(''));
  }

  /** What the kernel's sets of these roles hold beside what we put there; `members` compares each, not only their number. */
  async compare(roles: readonly SetRole[], members: boolean): Promise<Finding[]> {
    const findings: Finding[] = [];
    const existing = await this.#netfilter.readSets();
    for (const role of roles) {
      for (const family of this.#netfilter.backend.families) {
        const subject = setNames(role, family).live;
        const live = existing.get(subject);
        const meant = this.#known.get(subject)?.entries;
        if (live === undefined) {
          findings.push({ kind: 'set-missing', family, subject, detail: 'the set is gone' });
        } else if (meant !== undefined && live.members !== meant.size) {
          const detail = `${live.members} members, meant ${meant.size}`;
          findings.push({ kind: 'set-changed', family, subject, detail });
        } else if (meant !== undefined && members) {
          const detail = await this.#otherMembers(subject, meant);
          if (detail !== undefined) findings.push({ kind: 'set-changed', family, subject, detail });
        }
      }
    }
    return findings;
  }

  async #otherMembers(name: string, meant: Destinations): Promise<string | undefined> {
    let strange = 0;
    let found = 0;
    for (const key of await this.#netfilter.readMembers(name)) {
      if (meant.has(key)) found++;
      else strange++;
    }
    const missing = meant.size - found;
    if (strange + missing === 0) return undefined;
    return `${strange} members are not ours, ${missing} of ours are missing`;
  }
}
