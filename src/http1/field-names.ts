import { equalsIgnoringCase } from './characters.ts';

/** Names longer than this share a bit of the mask. */
const LAST_BIT = 31;

/** An immutable set of field names, which finds out about a name in a text without cutting it out. */
export class FieldNames {
  readonly #names: readonly string[];
  /** A bit for each length: nearly every name that is not in the set is ruled out by that. */
  readonly #lengths: number;

  /** Names in any case. */
  constructor(names: Iterable<string>) {
    this.#names = [...new Set([...names].map((name) => name.toLowerCase()))];
    this.#lengths = this.#names.reduce((mask, name) => mask | bit(name.length), 0);
  }

  /** True when `text` from `from` to `to` is one of the names. */
  includes(text: string, from: number, to: number): boolean {
    if ((this.#lengths & bit(to - from)) === 0) return false;
    for (const name of this.#names) {
      if (equalsIgnoringCase(text, from, to, name)) return true;
    }
    return false;
  }
}

function bit(length: number): number {
  return 1 << Math.min(length, LAST_BIT);
}
