/** What can stand between this agent and being ready. */
export const blockers = [
  'configuration',
  'listeners',
  'workers',
  'catalogue',
  'policies',
  'interception',
  'draining',
] as const;
export type Blocker = (typeof blockers)[number];

/** Ready when nothing blocks; each blocker says why in one sentence. */
export class Readiness {
  readonly #reasons = new Map<Blocker, string>();
  readonly #onChange: (ready: boolean) => void;

  /** Begins blocked by each of `initial`. */
  constructor(initial: readonly Blocker[], onChange: (ready: boolean) => void) {
    for (const blocker of initial) this.#reasons.set(blocker, 'not there yet');
    this.#onChange = onChange;
  }

  get ready(): boolean {
    return this.#reasons.size === 0;
  }

  get list(): readonly { readonly name: Blocker; readonly reason: string }[] {
    return Array.from(this.#reasons, ([name, reason]) => ({ name, reason }));
  }

  /** With a reason, blocks; without one, blocks no longer. */
  set(blocker: Blocker, reason: string | undefined): void {
    const before = this.ready;
    if (reason === undefined) this.#reasons.delete(blocker);
    else this.#reasons.set(blocker, reason);
    if (this.ready !== before) this.#onChange(this.ready);
  }
}
