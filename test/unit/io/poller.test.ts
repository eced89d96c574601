import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { closeDescriptor, countDescriptors } from '../../../src/io/descriptors.ts';
import * as libc from '../../../src/io/libc.ts';
import { INTEREST_ACCEPT, INTEREST_STREAM, Poller, type PollTarget } from '../../../src/io/poller.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';

const byte = new Uint8Array(1);
const send = (fd: number) => expect(libc.send(fd, byte, 1, 0)).toBe(1);
const take = (fd: number) => libc.recv(fd, byte, 1, 0);
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

function target(ready: (events: number) => void, failed: (error: unknown) => void = () => {}): PollTarget {
  return { ready, failed };
}

describe('Poller', () => {
  let poller: Poller;
  const open: number[] = [];
  const pair = () => {
    const made = createSocketPair();
    open.push(...made);
    return made;
  };
  beforeEach(() => {
    poller = new Poller();
  });
  afterEach(() => {
    poller.close();
    for (const fd of open.splice(0)) closeDescriptor(fd);
  });

  test('tells a target that its descriptor is ready, and only while it is registered', async () => {
    const [a, b] = pair();
    let calls = 0;
    poller.register(
      a,
      INTEREST_ACCEPT,
      target(() => {
        calls++;
        take(a);
      }),
    );
    await turn();
    expect(calls).toBe(0);
    send(b);
    await turn();
    expect(calls).toBe(1);
    poller.modify(a, 0);
    send(b);
    await turn();
    expect(calls).toBe(1);
    poller.modify(a, INTEREST_ACCEPT);
    await turn();
    expect(calls).toBe(2);
    poller.unregister(a);
    send(b);
    await turn();
    expect(calls).toBe(2);
  });

  test('refuses a descriptor that is none, and one that it has already', () => {
    const [a] = pair();
    poller.register(
      a,
      INTEREST_ACCEPT,
      target(() => {}),
    );
    expect(() =>
      poller.register(
        a,
        INTEREST_ACCEPT,
        target(() => {}),
      ),
    ).toThrow('EEXIST');
    expect(() =>
      poller.register(
        9999,
        INTEREST_ACCEPT,
        target(() => {}),
      ),
    ).toThrow('EBADF');
  });

  test('drops the event of a connection that was closed in the same batch, though its number is in use again', async () => {
    const [a, a2] = pair();
    const [b, b2] = pair();
    const served: string[] = [];
    let fresh: readonly [number, number] | undefined;
    // Whichever comes first closes both, and the number of the other is taken by a stranger at once.
    const whoeverIsFirst = (other: number) => () => {
      if (fresh !== undefined) return;
      poller.forget(other);
      closeDescriptor(other);
      fresh = createSocketPair();
      expect(fresh).toContain(other);
      open.push(...fresh.filter((fd) => !open.includes(fd)));
      poller.register(
        other,
        INTEREST_ACCEPT,
        target(() => served.push('stranger')),
      );
    };
    poller.register(a, INTEREST_ACCEPT, target(whoeverIsFirst(b)));
    poller.register(b, INTEREST_ACCEPT, target(whoeverIsFirst(a)));
    send(a2);
    send(b2);
    await turn();
    expect(fresh).toBeDefined();
    expect(served).toEqual([]);
    expect(poller.staleEvents).toBe(1);
  });

  test('what a target throws costs that target only, and surfaces from the loop', async () => {
    const pairs = Array.from({ length: 3 }, pair);
    const served: number[] = [];
    const failures: unknown[] = [];
    for (const [i, [a]] of pairs.entries()) {
      poller.register(
        a,
        INTEREST_STREAM & ~4,
        target(
          () => {
            take(a);
            if (i === 1) throw new Error('boom');
            served.push(i);
          },
          (error) => failures.push(error),
        ),
      );
    }
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    const surfaced: unknown[] = [];
    process.on('uncaughtException', (error) => surfaced.push(error));
    try {
      for (const [, b] of pairs) send(b);
      await turn();
      poller.afterBatch(() => {
        throw new Error('from a task');
      });
      await turn();
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of before) process.on('uncaughtException', listener);
    }
    expect(served.sort()).toEqual([0, 2]);
    expect(failures.map(String)).toEqual(['Error: boom']);
    expect(surfaced.map(String)).toEqual(['Error: boom', 'Error: from a task']);
    // The trap: after an exception left a koffi callback, no callback is ever called again.
    served.length = 0;
    for (const [, b] of pairs) if (b !== pairs[1]![1]) send(b);
    await turn();
    expect(served.sort()).toEqual([0, 2]);
  });

  test('promises and nextTicks made in a callback run before the next callback', async () => {
    const [a, b] = pair();
    const total = 20_000;
    let calls = 0;
    let ticks = 0;
    let promises = 0;
    let missed = 0;
    await new Promise<void>((resolve) => {
      poller.register(
        a,
        INTEREST_ACCEPT,
        target(() => {
          if (ticks !== calls || promises !== calls) missed++;
          calls++;
          take(a);
          process.nextTick(() => ticks++);
          void Promise.resolve().then(() => promises++);
          if (calls < total) send(b);
          else resolve();
        }),
      );
      send(b);
    });
    await turn();
    expect({ calls, ticks, promises, missed }).toEqual({
      calls: total,
      ticks: total,
      promises: total,
      missed: 0,
    });
  });

  test('a task runs once, after everything that was ready together', async () => {
    const pairs = Array.from({ length: 10 }, pair);
    const order: string[] = [];
    let scheduled = false;
    for (const [a] of pairs) {
      poller.register(
        a,
        INTEREST_ACCEPT,
        target(() => {
          take(a);
          order.push('ready');
          if (scheduled) return;
          scheduled = true;
          poller.afterBatch(() => {
            order.push('task');
            poller.afterBatch(() => order.push('task of the task'));
          });
        }),
      );
    }
    for (const [, b] of pairs) send(b);
    await turn();
    expect(order).toEqual([...Array(10).fill('ready'), 'task', 'task of the task']);
  });

  test('outside of a batch a task runs in a microtask', async () => {
    const order: string[] = [];
    poller.afterBatch(() => order.push('task'));
    poller.afterBatch(() => order.push('second'));
    order.push('caller');
    await Promise.resolve();
    expect(order).toEqual(['caller', 'task', 'second']);
  });

  test('many ready descriptors are all served', async () => {
    const served = new Set<number>();
    for (let i = 0; i < 600; i++) {
      const [a, b] = pair();
      poller.register(
        a,
        INTEREST_STREAM & ~4,
        target(() => served.add(a)),
      );
      send(b);
    }
    await turn();
    expect(served.size).toBe(600);
  });

  test('closing frees its descriptors; a closed one calls nobody', async () => {
    poller.close();
    const before = countDescriptors();
    const other = new Poller();
    const [a, b] = pair();
    let calls = 0;
    other.register(
      a,
      INTEREST_ACCEPT,
      target(() => calls++),
    );
    send(b);
    other.close();
    other.close();
    await turn();
    expect(calls).toBe(0);
    expect(countDescriptors() - before).toBe(2);
  });

  test('a poller closed from within a callback stops there', async () => {
    const pairs = Array.from({ length: 3 }, pair);
    let calls = 0;
    for (const [a] of pairs) {
      poller.register(
        a,
        INTEREST_ACCEPT,
        target(() => {
          calls++;
          poller.close();
        }),
      );
    }
    for (const [, b] of pairs) send(b);
    await turn();
    expect(calls).toBe(1);
  });
});
