import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { REFUSED, SOCKETS_PER_ANSWER } from '../../../src/daemon/supervisor/transparent-sockets.ts';
import { TransparentPool } from '../../../src/daemon/worker/transparent-pool.ts';
import { AF_INET, AF_INET6, SOCK_STREAM } from '../../../src/io/constants.ts';
import { receiveDescriptors, sendDescriptors } from '../../../src/io/descriptor-passing.ts';
import { closeDescriptor, countDescriptors } from '../../../src/io/descriptors.ts';
import * as libc from '../../../src/io/libc.ts';
import { Poller } from '../../../src/io/poller.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import { UnixListener } from '../../../src/io/unix-socket.ts';
import { endpointKey, parseEndpoint } from '../../../src/model/address.ts';

/** A supervisor that passes ordinary sockets: those may be bound to loopback addresses. */
class FakeSupervisor {
  readonly asked: number[] = [];
  answers = true;
  refuses = false;
  readonly #listener: UnixListener;
  readonly #poller: Poller;
  readonly #connections: number[] = [];

  constructor(poller: Poller, path: string) {
    this.#poller = poller;
    this.#listener = new UnixListener(poller, path, (fd) => {
      this.#connections.push(fd);
      poller.register(fd, 1, { ready: () => this.#serve(fd), failed: () => {} });
    });
  }

  close(): void {
    this.#listener.close();
    for (const fd of this.#connections.splice(0)) {
      this.#poller.unregister(fd);
      closeSync(fd);
    }
  }

  #serve(fd: number): void {
    const message = receiveDescriptors(fd);
    if (typeof message === 'string') {
      this.#poller.unregister(fd);
      return;
    }
    for (const family of message.bytes) {
      this.asked.push(family);
      if (!this.answers) continue;
      const sockets = this.refuses
        ? []
        : Array.from({ length: SOCKETS_PER_ANSWER }, () =>
            libc.socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0),
          );
      sendDescriptors(fd, Uint8Array.of(this.refuses ? family | REFUSED : family), sockets);
      for (const socket of sockets) closeDescriptor(socket);
    }
  }
}

let directory: string;
let path: string;
let poller: Poller;
let supervisor: FakeSupervisor;
let pool: TransparentPool;
let before: number;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'mesh-sockets-'));
  path = join(directory, 'sockets.sock');
  poller = new Poller();
  before = countDescriptors();
  supervisor = new FakeSupervisor(poller, path);
  pool = new TransparentPool(poller, path);
});

afterEach(() => {
  pool.close();
  supervisor.close();
  expect(countDescriptors()).toBe(before);
  poller.close();
  rmSync(directory, { recursive: true });
});

/** One that wants a socket; `wanted` false: it has given up. */
function waiter(source: string, wanted = true): Promise<string> {
  return new Promise((resolve) => {
    pool.obtain(parseEndpoint(source)!, {
      take: (fd) => {
        if (!wanted) {
          resolve('given up');
          return false;
        }
        const { ip } = localEndpointOf(fd)!;
        resolve(endpointKey(localEndpointOf(fd)!).replace(/:0$/, ':any'));
        expect(ip).toBe(parseEndpoint(source)!.ip);
        closeSync(fd);
        return true;
      },
      fail: (reason, detail) => resolve(`${reason}: ${detail}`),
    });
  });
}

it('gives bound sockets of both families, and asks again before it has none', async () => {
  expect(await waiter('127.0.0.9:40404')).toBe('127.0.0.9:40404');
  expect(await waiter('[::1]:40404')).toBe('[::1]:40404');
  for (let i = 0; i < 2 * SOCKETS_PER_ANSWER; i++)
    expect(await waiter(`127.0.0.9:${40_500 + i}`)).toBe(`127.0.0.9:${40_500 + i}`);
  expect(supervisor.asked.filter((family) => family === 6).length).toBe(1);
  expect(supervisor.asked.filter((family) => family === 4).length).toBeGreaterThan(1);
});

it('takes another port when the caller’s is in use here', async () => {
  const fd = libc.socket(AF_INET, SOCK_STREAM, 0);
  const busy = new Uint8Array([AF_INET, 0, 40_405 >> 8, 40_405 & 0xff, 127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
  expect(libc.bind(fd, busy, busy.length)).toBe(0);
  expect(await waiter('127.0.0.9:40405')).toBe('127.0.0.9:any');
  closeSync(fd);
});

it('lets connections wait, each for itself', async () => {
  supervisor.answers = false;
  const first = waiter('127.0.0.9:40404', false);
  const second = waiter('127.0.0.9:40406');
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(supervisor.asked).toEqual([4]);
  // The next supervisor answers.
  supervisor.close();
  supervisor = new FakeSupervisor(poller, path);
  expect(await Promise.all([first, second])).toEqual(['given up', '127.0.0.9:40406']);
});

it('says why there is none', async () => {
  supervisor.refuses = true;
  expect(await waiter('127.0.0.9:40404')).toMatch(/^system: /);
  supervisor.refuses = false;
  expect(await waiter('127.0.0.9:40404')).toBe('127.0.0.9:40404');
});

it('bounds those that wait, and ends them when it closes', async () => {
  supervisor.answers = false;
  const waiting = Array.from({ length: 256 }, () => waiter('127.0.0.9:40404'));
  expect(await waiter('127.0.0.9:40404')).toMatch(/^overload: more than 256/);
  pool.close();
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['draining: the agent stops']));
  expect(await waiter('127.0.0.9:40404')).toMatch(/^overload/);
});

it('an address that is not to be had is the end of that connection only', async () => {
  expect(await waiter('192.0.2.1:40404')).toMatch(/^system: bind: EADDRNOTAVAIL/);
  expect(await waiter('127.0.0.9:40404')).toBe('127.0.0.9:40404');
});
