import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MeshError } from '../../../src/model/errors.ts';
import { HostLookup } from '../../../src/naming/host-lookup.ts';

const TIMEOUT = 5_000;

/** Answers come when the test gives them. */
class World {
  readonly asked: string[] = [];
  readonly #pending = new Map<string, { resolve: (said: string[]) => void; reject: (why: Error) => void }>();
  readonly lookup = new HostLookup({
    timeoutMs: () => TIMEOUT,
    now: () => Date.now(),
    resolve: (name) => {
      this.asked.push(name);
      return new Promise((resolve, reject) => this.#pending.set(name, { resolve, reject }));
    },
  });

  says(name: string, ...addresses: string[]): void {
    this.#pending.get(name)!.resolve(addresses);
  }

  fails(name: string): void {
    this.#pending.get(name)!.reject(new Error(`getaddrinfo ENOTFOUND ${name}`));
  }

  /** The code with which it is refused. */
  async refusal(name: string): Promise<string> {
    const error: unknown = await this.lookup.addresses(name).then(undefined, (why: unknown) => why);
    return error instanceof MeshError ? error.code : `${error}`;
  }
}

let world: World;
beforeEach(() => {
  vi.useFakeTimers();
  world = new World();
});
afterEach(() => vi.useRealTimers());
const pass = (milliseconds: number) => vi.advanceTimersByTimeAsync(milliseconds);

describe('a name', () => {
  it('is asked for once by all who ask together, and for a while after', async () => {
    const answers = [world.lookup.addresses('a'), world.lookup.addresses('a')];
    world.says('a', '10.0.0.1', 'fd00:0::1', 'nonsense');
    expect(await Promise.all(answers)).toEqual([
      ['10.0.0.1', 'fd00::1'],
      ['10.0.0.1', 'fd00::1'],
    ]);
    await pass(9_000);
    await world.lookup.addresses('a');
    expect(world.asked).toEqual(['a']);
    await pass(2_000);
    void world.lookup.addresses('a');
    expect(world.asked).toEqual(['a', 'a']);
  });

  it('that there is none of is asked for again soon', async () => {
    const refusal = world.refusal('a');
    world.fails('a');
    expect(await refusal).toBe('no-service');
    expect(await world.refusal('a')).toBe('no-service');
    expect(world.asked).toEqual(['a']);
    await pass(1_100);
    void world.refusal('a');
    expect(world.asked).toEqual(['a', 'a']);
  });

  it('is waited for no longer than its time', async () => {
    const refusal = world.refusal('slow');
    await pass(TIMEOUT);
    expect(await refusal).toBe('timeout');
  });
});

describe('names', () => {
  it('are asked for a few at a time; one that hangs keeps its place until it has its answer', async () => {
    const all = ['a', 'b', 'c', 'd', 'e'].map((name) => world.refusal(name));
    expect(world.asked).toEqual(['a', 'b', 'c']);
    world.fails('b');
    await pass(0);
    expect(world.asked).toEqual(['a', 'b', 'c', 'd']);
    await pass(TIMEOUT);
    expect(await Promise.all(all)).toEqual([...['timeout', 'no-service'], ...Array(3).fill('timeout')]);
    // Nobody waits for e any more: it is not asked for, and the place is free again.
    world.says('a', '10.0.0.1');
    await pass(0);
    void world.refusal('f');
    expect(world.asked).toEqual(['a', 'b', 'c', 'd', 'f']);
  });

  it('that wait are bounded', async () => {
    const waiting = Array.from({ length: 3 + 256 }, (_, i) => world.refusal(`n${i}`));
    expect(await world.refusal('one more')).toBe('overload');
    await pass(TIMEOUT);
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['timeout']));
  });
});
