import { closeSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  REFUSED,
  SOCKETS_PER_ANSWER,
  TransparentSockets,
} from '../../../src/daemon/supervisor/transparent-sockets.ts';
import { effectiveCapabilities } from '../../../src/io/capabilities.ts';
import { AF_INET6 } from '../../../src/io/constants.ts';
import {
  type PassedMessage,
  receiveDescriptors,
  sendDescriptors,
} from '../../../src/io/descriptor-passing.ts';
import { closeDescriptor, countDescriptors } from '../../../src/io/descriptors.ts';
import * as libc from '../../../src/io/libc.ts';
import { Poller } from '../../../src/io/poller.ts';
import { connectUnix } from '../../../src/io/unix-socket.ts';

const MAY_MAKE = effectiveCapabilities() !== 0n;

let directory: string;
let path: string;
let poller: Poller;
let sockets: TransparentSockets;
let errors: unknown[];
let before: number;
const workers: number[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mesh-sockets-'));
  path = join(directory, 'sockets.sock');
  poller = new Poller();
  errors = [];
  before = countDescriptors();
  sockets = new TransparentSockets(poller, path, {
    error: (...said: unknown[]) => errors.push(said),
  } as never);
});

afterEach(() => {
  for (const fd of workers.splice(0)) closeSync(fd);
  sockets.close();
  expect(countDescriptors()).toBe(before);
  poller.close();
  rmSync(directory, { recursive: true });
});

function worker(): number {
  const fd = connectUnix(path, process.geteuid!());
  if (fd === undefined) throw new Error('nobody listens');
  workers.push(fd);
  return fd;
}

async function answer(fd: number): Promise<PassedMessage | 'closed' | 'broken'> {
  const deadline = Date.now() + 5000;
  for (;;) {
    const message = receiveDescriptors(fd);
    if (message !== 'empty') return message;
    if (Date.now() > deadline) throw new Error('no answer in time');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('sockets that the supervisor makes', () => {
  it('come as many as were asked for at once, of the family that was asked for; or it says that it may not', async () => {
    const fd = worker();
    sendDescriptors(fd, Uint8Array.of(6), []);
    const message = await answer(fd);
    if (typeof message === 'string') throw new Error(message);
    if (MAY_MAKE) {
      expect([...message.bytes]).toEqual([6]);
      expect(message.descriptors.length).toBe(SOCKETS_PER_ANSWER);
      const address = new Uint8Array(28);
      libc.getsockname(message.descriptors[0]!, address, Uint8Array.of(28, 0, 0, 0));
      expect(address[0]).toBe(AF_INET6);
      expect(errors).toEqual([]);
    } else {
      expect([...message.bytes]).toEqual([6 | REFUSED]);
      expect(errors.length).toBe(1);
    }
    for (const descriptor of message.descriptors) closeDescriptor(descriptor);
  });

  it.each([
    ['a family that there is not', [5], []],
    ['nonsense', [0xff, 0x00], []],
    ['more questions than there are families', [4, 4, 4, 4], []],
    ['a descriptor', [4], [0]],
  ])('are not given to one that sends %s', async (_what, bytes, descriptors) => {
    const fd = worker();
    sendDescriptors(fd, Uint8Array.from(bytes), descriptors);
    expect(await answer(fd)).toBe('closed');
  });

  it('are not to be had once nobody answers, and cannot be asked for', async () => {
    const fd = worker();
    sockets.close();
    expect(await answer(fd)).toBe('closed');
    expect(existsSync(path)).toBe(false);
    sockets = new TransparentSockets(poller, path, { error: () => {} } as never);
    worker();
  });

  it('are given to so many at most', async () => {
    const many = Array.from({ length: 65 }, () => worker());
    expect(await answer(many.at(-1)!)).toBe('closed');
  });
});
