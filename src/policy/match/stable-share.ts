/*
 * Choices that come out the same for the same text, in every process of every host and version: a user who is sticky stays
 * where it is.
 */

/** FNV-1a (32 bits) of the text's UTF-16 code units. */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** A number in [0, 1) for a text, evenly spread. `salt` makes choices about the same text independent of each other. */
export function stableShare(salt: string, text: string): number {
  let hash = FNV_OFFSET;
  for (let at = 0; at < salt.length; at++) hash = Math.imul(hash ^ salt.charCodeAt(at), FNV_PRIME);
  // Between the two, so that moving a character from one to the other makes a difference.
  hash = Math.imul(hash ^ 0xffff, FNV_PRIME);
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), FNV_PRIME);
  return finalised(hash) / 2 ** 32;
}

/** The last steps of MurmurHash3: FNV alone leaves similar texts close to each other. */
function finalised(hash: number): number {
  let h = hash ^ (hash >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
