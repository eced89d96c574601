/*
 * msgpackr makes an array as long as its header says before it looks for what should be in it, so five bytes can cost
 * 256 MiB. This walk holds a message to its word first (https://github.com/msgpack/msgpack/blob/master/spec.md).
 */

/** Arrays and maps within each other; ours are 8 deep. */
export const MAX_DEPTH = 32;

/** Bytes of the length behind a type, and of a value of fixed size. */
const LENGTH_BYTES: ReadonlyMap<number, number> = new Map([
  ...([0xd9, 0xda, 0xdb] as const).map((type, i) => [type, 1 << i] as const), // str 8, 16, 32
  ...([0xdc, 0xdd] as const).map((type, i) => [type, 2 << i] as const), // array 16, 32
  ...([0xde, 0xdf] as const).map((type, i) => [type, 2 << i] as const), // map 16, 32
]);
const FIXED_BYTES: ReadonlyMap<number, number> = new Map([
  ...([0xc0, 0xc2, 0xc3] as const).map((type) => [type, 0] as const), // nil, false, true
  ...([0xca, 0xcb] as const).map((type, i) => [type, 4 << i] as const), // float 32, 64
  ...([0xcc, 0xcd, 0xce, 0xcf] as const).map((type, i) => [type, 1 << i] as const), // uint 8 to 64
  ...([0xd0, 0xd1, 0xd2, 0xd3] as const).map((type, i) => [type, 1 << i] as const), // int 8 to 64
]);
/** An extension of one byte: type 0 is `undefined` to msgpackr, and the only one that is allowed. */
const FIXEXT_1 = 0xd4;

/**
 * True when these bytes are exactly one value, made of nothing but plain data (no binary, no extension but `undefined`),
 * of at most so many values in all. Never throws; works in proportion to the values.
 */
export function isPlainMessage(bytes: Uint8Array, maxValues: number): boolean {
  /** Values that each open array or map still lacks. */
  const missing = [1];
  let left = maxValues;
  let at = 0;
  while (missing.length > 0) {
    const depth = missing.length - 1;
    if (missing[depth] === 0) {
      missing.pop();
      continue;
    }
    missing[depth]!--;
    const type = bytes[at++];
    if (type === undefined || left-- === 0) return false;
    if (type < 0x80 || type >= 0xe0) continue; // small integers
    const inside = type < 0xa0 ? type & 0x0f : type & 0x1f;
    if (type >= 0xa0 && type < 0xc0) at += inside;
    else if (type < 0xa0) missing.push(type < 0x90 ? 2 * inside : inside);
    else if (type === FIXEXT_1) {
      if (bytes[at] !== 0) return false;
      at += 2;
    } else if (FIXED_BYTES.has(type)) at += FIXED_BYTES.get(type)!;
    else {
      const size = LENGTH_BYTES.get(type);
      if (size === undefined || at + size > bytes.length) return false;
      let length = 0;
      for (const end = at + size; at < end; at++) length = length * 256 + bytes[at]!;
      if (type <= 0xdb) at += length;
      else missing.push(type >= 0xde ? 2 * length : length);
    }
    if (at > bytes.length || missing.length > MAX_DEPTH) return false;
  }
  return at === bytes.length;
}
