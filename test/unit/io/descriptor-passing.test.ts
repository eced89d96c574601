import { closeSync, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { EAGAIN, EPIPE } from '../../../src/io/constants.ts';
import {
  MAX_PASSED_BYTES,
  MAX_PASSED_DESCRIPTORS,
  type PassedMessage,
  receiveDescriptors,
  sendDescriptors,
} from '../../../src/io/descriptor-passing.ts';
import { countDescriptors } from '../../../src/io/descriptors.ts';
import { CMSGHDR, IOVEC, MSGHDR } from '../../../src/io/layout.ts';
import * as libc from '../../../src/io/libc.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';

const RLIMIT_NOFILE = 7;
const open: number[] = [];

function pair(): readonly [number, number] {
  const made = createSocketPair();
  open.push(...made);
  return made;
}

function received(fd: number): PassedMessage {
  const message = receiveDescriptors(fd);
  if (typeof message === 'string') throw new Error(message);
  open.push(...message.descriptors);
  return message;
}

/** Sets the soft limit of open descriptors; answers the one before. */
function setDescriptorLimit(soft: number): number {
  const limits = new BigUint64Array(2);
  const bytes = new Uint8Array(limits.buffer);
  libc.prlimit(0, RLIMIT_NOFILE, null, bytes);
  const before = Number(limits[0]);
  limits[0] = BigInt(soft);
  libc.prlimit(0, RLIMIT_NOFILE, bytes, null);
  return before;
}

afterEach(() => {
  for (const fd of open.splice(0)) closeSync(fd);
});

test('layouts are those of 64-bit Linux', () => {
  expect(MSGHDR).toEqual({ size: 56, iov: 16, iovCount: 24, control: 32, controlSize: 40, flags: 48 });
  expect(IOVEC).toEqual({ size: 16, base: 0, length: 8 });
  expect(CMSGHDR).toEqual({ size: 16, length: 0, level: 8, type: 12 });
});

describe('passing descriptors', () => {
  test('what arrives is the same file, closed when another program is executed', () => {
    const [a, b] = pair();
    const file = openSync('/etc/passwd', 'r');
    expect(sendDescriptors(a, Buffer.from('hello'), [file])).toBe(0);
    const { bytes, descriptors } = received(b);
    expect(Buffer.from(bytes).toString()).toBe('hello');
    expect(descriptors).toHaveLength(1);
    expect(descriptors[0]).not.toBe(file);
    expect(fstatSync(descriptors[0]!).ino).toBe(fstatSync(file).ino);
    const flags = /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${descriptors[0]}`, 'utf8'))![1]!;
    expect(Number.parseInt(flags, 8) & 0o2000000).not.toBe(0);
    closeSync(file);
  });

  test('as many as one message holds, in order, and one more is refused before anything is sent', () => {
    const [a, b] = pair();
    const files = Array.from({ length: MAX_PASSED_DESCRIPTORS }, (_, i) =>
      openSync(i % 2 === 0 ? '/etc/passwd' : '/etc/group', 'r'),
    );
    open.push(...files);
    const body = Buffer.alloc(MAX_PASSED_BYTES, 7);
    expect(sendDescriptors(a, body, files)).toBe(0);
    const { bytes, descriptors } = received(b);
    expect(Buffer.compare(bytes, body)).toBe(0);
    expect(descriptors.map((fd) => fstatSync(fd).ino)).toEqual(files.map((fd) => fstatSync(fd).ino));
    expect(() => sendDescriptors(a, Buffer.from('x'), [...files, files[0]!])).toThrow(RangeError);
    expect(() => sendDescriptors(a, Buffer.alloc(MAX_PASSED_BYTES + 1), [])).toThrow(RangeError);
    expect(receiveDescriptors(b)).toBe('empty');
  });

  test('bytes alone, and then nothing', () => {
    const [a, b] = pair();
    expect(sendDescriptors(a, Buffer.from('no descriptor'), [])).toBe(0);
    expect(received(b)).toMatchObject({ descriptors: [] });
    expect(receiveDescriptors(b)).toBe('empty');
  });

  test('a side that is gone, one that does not read', () => {
    const [a, b] = pair();
    let errno = 0;
    for (let i = 0; i < 10_000 && errno === 0; i++) errno = sendDescriptors(a, Buffer.alloc(4096), []);
    expect(errno).toBe(EAGAIN);
    const [c, d] = createSocketPair();
    open.push(c);
    closeSync(d);
    expect(receiveDescriptors(c)).toBe('closed');
    expect(sendDescriptors(c, Buffer.from('x'), [])).toBe(EPIPE);
    expect(b).toBeGreaterThan(0);
  });

  test('descriptors that this process has no room for are not half taken', () => {
    const [a, b] = pair();
    expect(sendDescriptors(a, Buffer.from('x'), [0, 1, 2])).toBe(0);
    // Numbers below the highest one are free, too, until they are taken.
    const highest = Math.max(...readdirSync('/proc/self/fd').map(Number));
    let last = -1;
    while (last <= highest) {
      last = openSync('/dev/null', 'r');
      open.push(last);
    }
    const before = countDescriptors();
    const soft = setDescriptorLimit(last + 2);
    const taken = receiveDescriptors(b);
    setDescriptorLimit(soft);
    expect(taken).toBe('broken');
    expect(countDescriptors()).toBe(before);
  });

  test('leaves no descriptor behind', () => {
    const [a, b] = pair();
    const before = countDescriptors();
    for (let i = 0; i < 100; i++) {
      sendDescriptors(a, Buffer.from('x'), [0, 1, 2]);
      const message = receiveDescriptors(b);
      if (typeof message === 'string') throw new Error(message);
      for (const fd of message.descriptors) closeSync(fd);
    }
    expect(countDescriptors()).toBe(before);
  });
});
