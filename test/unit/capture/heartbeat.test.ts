import { spawnSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Heartbeat, vouchForWorkers } from '../../../src/capture/heartbeat.ts';
import { countDescriptors } from '../../../src/io/descriptors.ts';
import { waitFor } from '../../support/process.ts';

let directory: string;
let heartbeat: Heartbeat;
const failed = vi.fn();
const receivers: Socket[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'heartbeat-'));
});
afterEach(() => {
  heartbeat.stop();
  for (const receiver of receivers.splice(0)) receiver.close();
  rmSync(directory, { recursive: true, force: true });
  failed.mockClear();
});

/** A datagram socket on loopback, and how many datagrams came. */
async function receiver(type: 'udp4' | 'udp6', port = 0) {
  const socket = createSocket(type);
  receivers.push(socket);
  let count = 0;
  socket.on('message', () => count++);
  socket.bind(port, type === 'udp4' ? '127.0.0.1' : '::1');
  await once(socket, 'listening');
  return { port: socket.address().port, count: () => count };
}

const beating = (port: number, runtimeDirectory = directory): Heartbeat => {
  heartbeat = new Heartbeat({ port, runtimeDirectory, onFailure: failed });
  heartbeat.start();
  return heartbeat;
};
const alive = () => join(directory, 'alive');
/** Whether another process can have the file for itself: nobody that lives holds it. */
const isFree = () => spawnSync('flock', ['--nonblock', alive(), 'true']).status === 0;

describe('a worker that serves', () => {
  test('sends datagrams to the port on both loopback addresses', async () => {
    const ipv4 = await receiver('udp4');
    const ipv6 = await receiver('udp6', ipv4.port);
    beating(ipv4.port);
    await waitFor('three of each', () => ipv4.count() >= 3 && ipv6.count() >= 3);
    heartbeat.stop();
  });

  test('keeps the time of a file fresh, and holds it', async () => {
    beating(9);
    expect(isFree()).toBe(false);
    expect(readFileSync(alive(), 'utf8')).toBe('');
    utimesSync(alive(), 1000, 1000);
    await waitFor('the file is fresh', () => Date.now() - statSync(alive()).mtimeMs < 1000);
    heartbeat.stop();
    expect(isFree()).toBe(true);
  });

  test('goes on where nobody takes the datagrams', async () => {
    beating(1); // answered by ICMP: nobody is there
    for (let i = 0; i < 2; i++) {
      utimesSync(alive(), 1000, 1000);
      await waitFor('the file is fresh', () => Date.now() - statSync(alive()).mtimeMs < 1000);
    }
  });
});

test('somebody else vouches for them once, on both addresses', async () => {
  beating(9);
  const ipv4 = await receiver('udp4');
  const ipv6 = await receiver('udp6', ipv4.port);
  const before = countDescriptors();
  vouchForWorkers(ipv4.port);
  await waitFor('one of each', () => ipv4.count() === 1 && ipv6.count() === 1);
  expect(countDescriptors()).toBe(before);
});

test('several workers share the file', () => {
  const first = beating(9);
  const second = new Heartbeat({ port: 9, runtimeDirectory: directory, onFailure: failed });
  second.start();
  first.stop();
  expect(isFree()).toBe(false);
  second.stop();
  expect(isFree()).toBe(true);
});

test('stopped and started again and again it keeps no descriptor', () => {
  beating(9).stop();
  const before = countDescriptors();
  for (let i = 0; i < 10; i++) {
    heartbeat.start();
    heartbeat.start();
    heartbeat.stop();
    heartbeat.stop();
  }
  expect(countDescriptors()).toBe(before);
});

test('without a file it says so, and sends on', async () => {
  const { port, count } = await receiver('udp4');
  beating(port, join(directory, 'missing'));
  expect(failed).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('ENOENT'));
  await waitFor('two', () => count() >= 2);
});
