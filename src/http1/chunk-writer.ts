/* The chunked coding, as it is sent on: sizes without leading zeros, no extensions (RFC 9112, 7.1). */

/** Most bytes that a chunk takes beside its data: 14 digits, which any safe number fits in, and two line ends. */
export const CHUNK_ROOM = 18;

/** What stands behind the data of each chunk. */
export const CHUNK_END: Uint8Array = Uint8Array.of(0x0d, 0x0a);

/** Writes what stands before the data of a chunk of `length` bytes, not 0; returns the index after it. */
export function writeChunkStart(out: Buffer, at: number, length: number): number {
  if (length <= 0) throw new RangeError('a chunk without data would end the message');
  let digits = 1;
  for (let rest = length; rest >= 16; rest = Math.floor(rest / 16)) digits++;
  let rest = length;
  for (let place = at + digits - 1; place >= at; place--) {
    out[place] = '0123456789abcdef'.charCodeAt(rest % 16);
    rest = Math.floor(rest / 16);
  }
  out[at + digits] = 0x0d;
  out[at + digits + 1] = 0x0a;
  return at + digits + 2;
}

/** Writes a whole chunk; `out` has room for {@link CHUNK_ROOM} bytes more than the data. Returns the index after it. */
export function writeChunk(out: Buffer, at: number, data: Uint8Array): number {
  const from = writeChunkStart(out, at, data.length);
  out.set(data, from);
  out.set(CHUNK_END, from + data.length);
  return from + data.length + CHUNK_END.length;
}

/** The end of a chunked message; `trailers` are lines made by `trailerLines`. */
export function lastChunkText(trailers = ''): string {
  return `0\r\n${trailers}\r\n`;
}
