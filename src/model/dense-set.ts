/** What a {@link DenseSet} can hold: it remembers its own place, in one set at a time. */
export interface DenseSetMember {
  /** Written by the set only; -1 while in none. */
  place: number;
}

/**
 * A set for things that come and go with every connection: a dense array whose members know their place. Adding and
 * deleting allocate nothing, and nothing of a deleted member stays behind. (The tables that a `Set` replaces by larger or
 * tidier ones point at their successors: once such a one is in V8's old space, the chain keeps members alive that were
 * deleted long ago, until the next full collection.)
 */
export class DenseSet<T extends DenseSetMember> {
  readonly #members: T[] = [];

  get size(): number {
    return this.#members.length;
  }

  /** In no particular order; an array of its own, so that members may be deleted while it is walked. */
  values(): T[] {
    return this.#members.slice();
  }

  has(member: T): boolean {
    return member.place >= 0 && this.#members[member.place] === member;
  }

  add(member: T): void {
    if (this.has(member)) return;
    member.place = this.#members.length;
    this.#members.push(member);
  }

  delete(member: T): void {
    if (!this.has(member)) return;
    const last = this.#members.pop()!;
    if (last !== member) {
      this.#members[member.place] = last;
      last.place = member.place;
    }
    member.place = -1;
  }

  clear(): void {
    for (const member of this.#members) member.place = -1;
    this.#members.length = 0;
  }
}
