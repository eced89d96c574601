/*
 * MurmurHash3, x86, 32 bits (Austin Appleby, public domain), over the UTF-16 code units of a text, low byte first. Fast,
 * even, and the same on every host; nothing here needs to resist an adversary: a caller that chooses its key chooses
 * one instance, which bounded load protects.
 */

/** Most code units of a text that count. */
const MAX_UNITS = 1024;

/** 32 bits, unsigned. */
export function hashText(text: string, seed = 0): number {
  const length = Math.min(text.length, MAX_UNITS);
  let hash = seed;
  let at = 0;
  for (; at + 1 < length; at += 2) {
    hash ^= scramble(text.charCodeAt(at) | (text.charCodeAt(at + 1) << 16));
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  if (at < length) hash ^= scramble(text.charCodeAt(at));
  return mix(hash ^ (length * 2));
}

/** The finalizer: every bit of `value` moves every bit of the answer. 32 bits, unsigned. */
export function mix(value: number): number {
  let hash = value ^ (value >>> 16);
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function scramble(block: number): number {
  const k = Math.imul(block, 0xcc9e2d51);
  return Math.imul((k << 15) | (k >>> 17), 0x1b873593);
}
