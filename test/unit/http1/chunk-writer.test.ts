import { describe, expect, it } from 'vitest';
import {
  CHUNK_END,
  CHUNK_ROOM,
  lastChunkText,
  writeChunk,
  writeChunkStart,
} from '../../../src/http1/chunk-writer.ts';

describe('writeChunk', () => {
  it.each([1, 9, 10, 15, 16, 255, 256, 4096, 65535])('writes %i bytes', (length) => {
    const data = Buffer.alloc(length, 'x');
    const out = Buffer.alloc(3 + length + CHUNK_ROOM, '.');
    const end = writeChunk(out, 3, data);
    expect(out.toString('latin1', 0, end)).toBe(`...${length.toString(16)}\r\n${data.toString()}\r\n`);
    expect(end - 3).toBeLessThanOrEqual(length + CHUNK_ROOM);
  });

  it('may be done in three writes, with no copy of the data', () => {
    const [start, whole] = [Buffer.alloc(CHUNK_ROOM), Buffer.alloc(20 + CHUNK_ROOM)];
    const data = Buffer.alloc(20, 'x');
    const parts = [start.subarray(0, writeChunkStart(start, 0, data.length)), data, CHUNK_END];
    expect(Buffer.concat(parts)).toEqual(whole.subarray(0, writeChunk(whole, 0, data)));
  });

  it('never writes a chunk that would end the message', () => {
    expect(() => writeChunk(Buffer.alloc(32), 0, new Uint8Array(0))).toThrow(RangeError);
  });

  it('has room for any length', () => {
    const out = Buffer.alloc(CHUNK_ROOM);
    const end = writeChunkStart(out, 0, Number.MAX_SAFE_INTEGER);
    expect(out.toString('latin1', 0, end)).toBe('1fffffffffffff\r\n');
    expect(end + 2).toBe(CHUNK_ROOM);
  });
});

it('lastChunkText ends a message, with trailers or without', () => {
  expect(lastChunkText()).toBe('0\r\n\r\n');
  expect(lastChunkText('x-a: 1\r\n')).toBe('0\r\nx-a: 1\r\n\r\n');
});
