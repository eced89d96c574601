import { beforeEach, describe, expect, it } from 'vitest';
import { noPolicy, type ServicePolicy } from '../../../src/model/policy.ts';
import type { Instance, Service, ServiceName } from '../../../src/model/service.ts';
import type { Choice, OpenedPath, SearchDependencies } from '../../../src/proxy/outbound-dependencies.ts';
import { UpstreamSearch } from '../../../src/proxy/search.ts';
import type { SearchScope } from '../../../src/proxy/seeker.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

const instances = ['1', '2', '3'].map((id) => ({ id, zone: 'z' }) as Instance);
const web = { name: 'web' as ServiceName, mode: 'permissive', instances } as unknown as Service;
const refused = { reason: 'refused', delivered: false } as const;

let policy: ServicePolicy;
let path: OpenedPath['path'];
let opened: { to: string; channel: MemoryChannel }[];
let choices: (Choice | undefined)[];
let timers: Map<() => void, number>;
let failed: unknown[];
let blamed: string[];

beforeEach(() => {
  policy = noPolicy;
  path = 'local';
  opened = [];
  choices = [];
  timers = new Map();
  failed = [];
  blamed = [];
});

const deps = {
  pick: (of: Service, exclude: ReadonlySet<Instance>, choice?: Choice) => {
    choices.push(choice);
    return of.instances.find((one) => !exclude.has(one));
  },
  started: (_service: Service, { id }: Instance) => ({
    connected() {},
    failed: () => blamed.push(id),
    answered() {},
    finished() {},
  }),
  open: (_service: Service, { id }: Instance) => {
    const channel = new MemoryChannel();
    opened.push({ to: id, channel });
    return { channel, path, viaAgent: false };
  },
  reached: () => {},
  unreached: () => {},
  after: (milliseconds: number, expired: () => void) => {
    timers.set(expired, milliseconds);
    return () => timers.delete(expired);
  },
  settings: () => ({ attempts: 3, replayBuffer: 0, agentPatience: 1000, connectTimeout: 5000 }),
  policy: () => policy,
  breaker: () => undefined,
} as unknown as SearchDependencies;

function search(scope?: SearchScope): UpstreamSearch {
  const journal = { attempts: 0, instance: undefined, zone: undefined, path: 'none', failures: undefined };
  const target = { service: web, instance: undefined };
  const seeker = {
    trying: () => {},
    found: () => failed.push('found'),
    failed: (...why: unknown[]) => void failed.push(why),
  };
  const origin = { address: undefined, program: undefined };
  const made = new UpstreamSearch(target, origin, deps, journal as never, seeker, scope);
  made.start();
  return made;
}

const to = () => opened.map((one) => one.to).join(' ');
const last = () => opened.at(-1)!.channel;

describe('a search', () => {
  it.each(['local', 'direct'] as const)('goes on at another instance: %s', (way) => {
    path = way;
    search();
    last().close(refused);
    last().close(refused);
    last().close(refused);
    expect(to()).toBe('1 2 3');
    expect(failed).toEqual([['refused', undefined, false]]);
  });

  it('avoids whom it is told to, and goes there when nobody else is left', () => {
    const made = search({ avoid: new Set([instances[0]!, instances[1]!]), attempts: 1 });
    last().close(refused);
    expect(to()).toBe('3 1');
    expect(made.attempts).toBe(3);
    expect([...made.avoided].map(({ id }) => id).sort()).toEqual(['1', '2', '3']);
    last().close(refused);
    expect(failed).toHaveLength(1);
  });

  it('makes as many attempts as it may, each with permission', () => {
    search({ most: 2 });
    last().close(refused);
    last().close(refused);
    expect(to()).toBe('1 2');
    const asked: number[] = [];
    search({ permit: () => asked.push(opened.length) < 2 });
    last().close(refused);
    last().close(refused);
    expect(to()).toBe('1 2 1 2');
    expect(asked).toEqual([3, 4]);
  });

  it('takes no permission where nobody is left to be asked', () => {
    const { pick } = deps;
    deps.pick = (service, exclude) => (exclude.size === 0 ? pick(service, exclude) : undefined);
    let asked = 0;
    try {
      search({ permit: () => ++asked > 0 });
      last().close(refused);
    } finally {
      deps.pick = pick;
    }
    expect([asked, failed.length]).toEqual([0, 1]);
  });

  it('hands its choice on, and names a subset in which nobody is', () => {
    const choice = { subset: { version: 'v2' }, key: 'ann' };
    search({ choice });
    expect(choices).toEqual([choice]);
    search({ choice, avoid: new Set(instances) });
    expect(choices.slice(1)).toEqual([choice, choice]);
    const { pick } = deps;
    try {
      deps.pick = () => undefined;
      search({ choice });
    } finally {
      deps.pick = pick;
    }
    expect(failed).toEqual([['no-instance', 'no instance of subset version=v2', false]]);
  });

  it('gives an instance as long as the policy says, and blames it then', async () => {
    search();
    expect([...timers.values()]).toEqual([]);
    policy = { timeouts: { connect: 300 } };
    for (const scope of [{}, { connectTimeout: 200 }]) {
      timers.clear();
      search(scope);
      expect([...timers.values()]).toEqual([scope.connectTimeout ?? 300]);
      const { to: slow, channel } = opened.at(-1)!;
      for (const expired of timers.keys()) expired();
      expect(channel.resetWith).toBe('timeout');
      await turn();
      expect(blamed.at(-1)).toBe(slow);
      expect(opened.at(-1)!.to).toBe('2');
      last().handler.open?.();
      expect(failed.at(-1)).toBe('found');
      expect(timers.size).toBe(0);
    }
    timers.clear();
    search({ connectTimeout: 0 });
    expect(timers.size).toBe(0);
  });

  it('whose attempt is too late goes on, and not when it may have been heard', async () => {
    const made = search();
    made.late();
    await turn();
    expect(to()).toBe('1 2');
    last().write(Buffer.from('x'));
    made.late();
    await turn();
    expect(failed).toEqual([['timeout', 'not reached in time', true]]);
    made.late();
    expect(to()).toBe('1 2');
  });
});
