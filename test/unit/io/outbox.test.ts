import { describe, expect, test } from 'vitest';
import { Outbox, type OutboxUser } from '../../../src/io/outbox.ts';

/** Writes down what goes out, and what is then asked by whoever it belonged to. */
class User implements OutboxUser {
  readonly sent: string[] = [];
  readonly #log: string[];
  readonly #name: string;
  constructor(name: string, log: string[] = []) {
    this.#name = name;
    this.#log = log;
  }
  sendOut(_address: number, size: number, bytes: Uint8Array, from: number): void {
    const text = Buffer.from(bytes.subarray(from, from + size)).toString();
    this.sent.push(text);
    this.#log.push(`${this.#name} ${text}`);
  }
}

const put = (outbox: Outbox, user: User, text: string) => {
  expect(outbox.takes(text.length)).toBe(true);
  outbox.put(user, Buffer.from(text));
};

describe('Outbox', () => {
  test('takes nothing outside of a batch, and nothing large within', () => {
    const outbox = new Outbox();
    expect(outbox.takes(1)).toBe(false);
    outbox.begin();
    expect(outbox.takes(1)).toBe(true);
    expect(outbox.takes(4096)).toBe(true);
    expect(outbox.takes(4097)).toBe(false);
    outbox.end();
    expect(outbox.takes(1)).toBe(false);
  });

  test('sends what waits in its order, and what one user wrote in a row as one', () => {
    const log: string[] = [];
    const [a, b] = [new User('a', log), new User('b', log)];
    const outbox = new Outbox();
    outbox.begin();
    put(outbox, a, 'one ');
    put(outbox, a, 'two');
    put(outbox, b, 'three');
    put(outbox, a, 'four');
    expect(log).toEqual([]);
    outbox.end();
    expect(log).toEqual(['a one two', 'b three', 'a four']);
    outbox.flush();
    expect(log).toHaveLength(3);
  });

  test('keeps a copy', () => {
    const outbox = new Outbox();
    const user = new User('a');
    const bytes = Buffer.from('before');
    outbox.begin();
    outbox.takes(bytes.length);
    outbox.put(user, bytes);
    bytes.fill(0);
    outbox.end();
    expect(user.sent).toEqual(['before']);
  });

  test('lets nobody wait for more than 32 writes, nor for more bytes than it has room for', () => {
    const log: string[] = [];
    const outbox = new Outbox();
    outbox.begin();
    for (let i = 0; i < 32; i++) put(outbox, new User(`${i}`, log), 'x');
    expect(log).toHaveLength(0);
    put(outbox, new User('one more', log), 'x');
    expect(log).toHaveLength(32);
    outbox.flush();
    log.length = 0;
    const user = new User('a', log);
    const piece = 'y'.repeat(4096);
    for (let i = 0; i < 16; i++) put(outbox, user, piece);
    expect(log).toHaveLength(0);
    put(outbox, user, 'z');
    expect(user.sent.map((text) => text.length)).toEqual([65_536]);
    outbox.end();
    expect(user.sent[1]).toBe('z');
  });
});
