import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HostNameResolver } from '../../../src/naming/host-names.ts';

const INTERVAL = 30_000;
const TIMEOUT = 5_000;

/** A resolver whose answers the test gives; a name without one is not found. */
class World {
  readonly asked: string[] = [];
  readonly log: string[] = [];
  readonly answers = new Map<string, readonly string[] | 'never'>();
  readonly resolver = new HostNameResolver({
    resolveInterval: INTERVAL,
    resolveTimeout: TIMEOUT,
    log: {
      info: (_fields, text) => this.log.push(text),
      warn: (_fields, text) => this.log.push(text),
    },
    ignored: (ip) => ip.startsWith('127.') || ip === '::1',
    resolve: async (name) => {
      this.asked.push(name);
      const answer = this.answers.get(name);
      if (answer === 'never') return await new Promise(() => {});
      if (answer === undefined) throw new Error(`getaddrinfo ENOTFOUND ${name}`);
      return answer;
    },
    random: () => 0.5,
  });

  follow(...names: string[]) {
    const changes: string[] = [];
    const user = this.resolver.follow((changed) => changes.push(...changed));
    user.set(new Set(names));
    return { user, changes };
  }
}

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());
const pass = (milliseconds: number) => vi.advanceTimersByTimeAsync(milliseconds);

describe('a name', () => {
  it('is resolved at once, and again after each interval', async () => {
    const world = new World();
    world.answers.set('db', ['10.0.0.2', '10.0.0.1', '10.0.0.2', 'fd00:0::1', '127.0.0.1', '::1', 'x']);
    const { user, changes } = world.follow('db');
    expect(user.addresses('db')).toEqual([]);
    await pass(1);
    expect(user.addresses('db')).toEqual(['10.0.0.1', '10.0.0.2', 'fd00::1']);
    await pass(INTERVAL);
    expect(world.asked).toEqual(['db', 'db']);
    expect(changes).toEqual(['db']);
    world.answers.set('db', ['10.0.0.3']);
    await pass(INTERVAL);
    expect(user.addresses('db')).toEqual(['10.0.0.3']);
    expect(changes).toEqual(['db', 'db']);
  });

  it('keeps its last answer when there is none, and that is told once', async () => {
    const world = new World();
    world.answers.set('db', ['10.0.0.1']);
    const { user, changes } = world.follow('db');
    await pass(1);
    world.answers.delete('db');
    await pass(3 * INTERVAL);
    expect(user.addresses('db')).toEqual(['10.0.0.1']);
    expect(user.problem('db')).toMatch(/ENOTFOUND/);
    expect(world.log.filter((text) => text.includes('not resolved'))).toHaveLength(1);
    world.answers.set('db', ['10.0.0.1']);
    await pass(INTERVAL);
    expect(user.problem('db')).toBeUndefined();
    expect(changes).toEqual(['db', 'db', 'db']);
  });

  it('that never had an answer is asked for more often, and less and less so', async () => {
    const world = new World();
    world.follow('db');
    await pass(1);
    expect(world.asked).toHaveLength(1);
    await pass(1_000);
    expect(world.asked).toHaveLength(2);
    await pass(2_000);
    expect(world.asked).toHaveLength(3);
    await pass(10 * INTERVAL);
    expect(world.asked.length).toBeLessThan(20);
  });

  it('that hangs costs its own place: others are resolved, and it is not asked for twice', async () => {
    const world = new World();
    world.answers.set('slow', 'never');
    world.answers.set('db', ['10.0.0.1']);
    const { user } = world.follow('slow', 'db');
    await pass(TIMEOUT + INTERVAL);
    expect(user.addresses('db')).toEqual(['10.0.0.1']);
    expect(user.problem('slow')).toBe(`no answer within ${TIMEOUT} ms`);
    expect(world.asked.filter((name) => name === 'slow')).toHaveLength(1);
  });
});

describe('users', () => {
  it('share what is resolved, and are told of their own names only', async () => {
    const world = new World();
    world.answers.set('a', ['10.0.0.1']);
    world.answers.set('b', ['10.0.0.2']);
    const one = world.follow('a');
    const other = world.follow('a', 'b');
    await pass(1);
    expect(world.asked.toSorted()).toEqual(['a', 'b']);
    expect([one.changes, other.changes.toSorted()]).toEqual([['a'], ['a', 'b']]);
    other.user.close();
    await pass(INTERVAL);
    expect(world.asked.toSorted()).toEqual(['a', 'a', 'b']);
    expect(one.user.addresses('a')).toEqual(['10.0.0.1']);
  });

  it('are bounded in names and in addresses', async () => {
    const world = new World();
    world.answers.set(
      'n0',
      Array.from({ length: 100 }, (_, i) => `10.0.0.${i}`),
    );
    const { user } = world.follow(...Array.from({ length: 5000 }, (_, i) => `n${i}`));
    await pass(INTERVAL / 2);
    expect(user.addresses('n0')).toHaveLength(64);
    expect(new Set(world.asked).size).toBe(4096);
    expect(world.log.filter((text) => text.includes('left out'))).toHaveLength(1);
  });

  it('may wait until everything was asked for once', async () => {
    const world = new World();
    world.answers.set('db', ['10.0.0.1']);
    world.answers.set('slow', 'never');
    const { user } = world.follow('db', 'unknown');
    const asked = world.resolver.asked(10_000);
    await pass(1);
    await asked;
    user.set(new Set(['slow']));
    const late = world.resolver.asked(1_000);
    await pass(1_000);
    await late;
  });
});

it('asks nothing any more once it is stopped', async () => {
  const world = new World();
  world.answers.set('db', ['10.0.0.1']);
  world.follow('db');
  await pass(1);
  world.resolver.stop();
  await pass(3 * INTERVAL);
  expect(world.asked).toEqual(['db']);
});

it('resolves as every program does, by /etc/hosts', async () => {
  vi.useRealTimers();
  const resolver = new HostNameResolver({
    ...{ resolveInterval: INTERVAL, resolveTimeout: TIMEOUT, ignored: () => false },
    log: { info: () => {}, warn: () => {} },
  });
  const user = resolver.follow(() => {});
  user.set(new Set(['localhost']));
  await resolver.asked(TIMEOUT);
  expect(user.addresses('localhost').length).toBeGreaterThan(0);
  resolver.stop();
});
