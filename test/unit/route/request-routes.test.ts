import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Route, ServicePolicy } from '../../../src/model/policy.ts';
import { RequestRoutes, requestRoutes } from '../../../src/route/request-routes.ts';
import { requestView } from '../policy/match/sample-request.ts';

const route = (of: Partial<Route>): Route => ({ name: 'r', matches: [], percent: 100, ...of });
const never = () => {
  throw new Error('asked for a random number');
};
const ofUser = (user: string) => requestView('GET', '/', { 'x-user': user });
const sticky = { kind: 'header', name: 'x-user' } as const;
const users = Array.from({ length: 2000 }, (_, index) => `user-${index}`);

/** Numbers in [0, 1) that are the same in each run (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Five standard deviations of a count of `of` draws with this probability. */
const bound = (of: number, probability: number) => 5 * Math.sqrt(of * probability * (1 - probability));

describe('RequestRoutes', () => {
  it('takes the first route that means the request', () => {
    const routes = new RequestRoutes([
      route({ name: 'post', matches: [{ methods: ['POST'] }] }),
      route({ name: 'api', matches: [{ path: { kind: 'prefix', value: '/api' } }], rewrite: { host: 'h' } }),
      route({ name: 'api2', matches: [{ path: { kind: 'prefix', value: '/api' } }] }),
    ]);
    expect(routes.decide(requestView('GET', '/api/x'), never)).toEqual({ name: 'api', host: 'h' });
    expect(routes.decide(requestView('POST', '/api/x'), never)?.name).toBe('post');
    expect(routes.decide(requestView('GET', '/x'), never)).toBeUndefined();
  });

  it('is compiled once for each policy, and not at all where there are no routes', () => {
    const policy: ServicePolicy = { routes: [route({})] };
    expect(requestRoutes(policy)).toBe(requestRoutes(policy));
    expect(requestRoutes({ routes: [route({})] })).not.toBe(requestRoutes(policy));
    expect(requestRoutes({})).toBeUndefined();
    expect(requestRoutes({ routes: [] })).toBeUndefined();
  });

  it('allocates nothing for a request that it does not change', () => {
    const routes = new RequestRoutes([route({ to: [{ subset: { v: '2' }, weight: 1 }] })]);
    const view = requestView('GET', '/');
    expect(routes.decide(view, never)).toBe(routes.decide(view, never));
    expect(routes.decide(view, never)).toEqual({ name: 'r', subset: { v: '2' } });
  });

  it('lets its share of requests in, the others go on to the next route', () => {
    const routes = new RequestRoutes([route({ name: 'canary', percent: 10 }), route({ name: 'rest' })]);
    const random = seeded(1);
    const view = requestView('GET', '/');
    const canary = users.filter(() => routes.decide(view, random)?.name === 'canary').length;
    expect(Math.abs(canary - users.length * 0.1)).toBeLessThan(bound(users.length, 0.1));
  });

  it('splits by weight, at random and by user', () => {
    const to = [
      { subset: { v: '1' }, weight: 80 },
      { subset: { v: '2' }, weight: 15 },
      { subset: { v: '3' }, weight: 5 },
      { subset: { v: '4' }, weight: 0 },
    ];
    for (const routes of [new RequestRoutes([route({ to })]), new RequestRoutes([route({ to, sticky })])]) {
      const random = seeded(2);
      const counts = new Map<string, number>();
      for (const user of users) {
        const version = routes.decide(ofUser(user), random)!.subset!['v']!;
        counts.set(version, (counts.get(version) ?? 0) + 1);
      }
      for (const { subset, weight } of to) {
        const count = counts.get(subset.v) ?? 0;
        const share = weight / 100;
        expect(Math.abs(count - users.length * share)).toBeLessThanOrEqual(bound(users.length, share));
      }
    }
  });

  it('keeps whoever is in while the share grows', () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 2, maxLength: 6 }),
        (name, shares) => {
          let before = new Set<string>();
          for (const tenths of shares.sort((a, b) => a - b)) {
            const routes = new RequestRoutes([route({ name, percent: tenths / 10, sticky })]);
            const inside = new Set(
              users.slice(0, 200).filter((user) => routes.decide(ofUser(user), never) !== undefined),
            );
            for (const user of before) expect(inside).toContain(user);
            before = inside;
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('keeps whoever is on a side while no other gains on it, in whatever order they stand', () => {
    const weight = fc.integer({ min: 1, max: 100 });
    fc.assert(
      fc.property(weight, weight, weight, fc.integer({ min: 0, max: 100 }), (a, b, c, more) => {
        const sides = (grown: number) => [
          { subset: { v: '1' }, weight: a },
          { subset: { v: '2' }, weight: b + grown },
          { subset: { v: '3' }, weight: c },
        ];
        const before = new RequestRoutes([route({ to: sides(0), sticky })]);
        const after = new RequestRoutes([route({ to: sides(more).reverse(), sticky })]);
        for (const user of users.slice(0, 100)) {
          const was = before.decide(ofUser(user), never)!.subset!['v'];
          const is = after.decide(ofUser(user), never)!.subset!['v'];
          if (was !== is) expect(is).toBe('2');
        }
      }),
      { numRuns: 50 },
    );
  });

  it('is the same on every host, and in every version', () => {
    const routes = new RequestRoutes([route({ name: 'canary', percent: 50, sticky })]);
    const inside = users.slice(0, 20).filter((user) => routes.decide(ofUser(user), never) !== undefined);
    expect(inside.map((user) => Number(user.slice(5)))).toMatchInlineSnapshot(`
      [
        0,
        3,
        4,
        6,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        19,
      ]
    `);
  });

  it('decides anew where the key is missing', () => {
    const routes = new RequestRoutes([route({ percent: 50, sticky })]);
    const view = requestView('GET', '/');
    expect(routes.decide(view, () => 0.49)?.name).toBe('r');
    expect(routes.decide(view, () => 0.51)).toBeUndefined();
  });

  it('takes all instances where no subset has a weight', () => {
    const routes = new RequestRoutes([route({ to: [{ subset: { v: '1' }, weight: 0 }] })]);
    expect(routes.decide(requestView('GET', '/'), never)).toEqual({ name: 'r' });
  });

  describe('rewrites', () => {
    const prefix = (value: string, path: string) =>
      new RequestRoutes([route({ matches: [{ path: { kind: 'prefix', value } }], rewrite: { path } })]);

    it.each([
      ['/api', '/v2', '/api', '/v2'],
      ['/api', '/v2', '/api/x?q=1', '/v2/x?q=1'],
      ['/api/', '/v2/', '/api/x', '/v2/x'],
      ['/api', '/', '/api/x', '/x'],
      ['/api', '/', '/api', '/'],
      ['/', '/v2', '/x', '/v2/x'],
      ['/api', '/v2', '/api/a%2Fb%2b;v=1//c', '/v2/a%2Fb%2b;v=1//c'],
      ['/api', '/v2', '/%61pi/x', '/v2/x'],
      ['/api', '/v2', '/x/../api/y', '/v2/y'],
      ['/api', '/v2', '/api/x/../../api/y', '/v2/y'],
      ['/api', '/v2', '/api/x/%2e%2e/y', '/v2/y'],
      ['/api', '/v2', '/api/.well-known/x', '/v2/.well-known/x'],
    ])('%s to %s: %s → %s', (from, to, path, expected) => {
      expect(prefix(from, to).decide(requestView('GET', path), never)?.path).toBe(expected);
    });

    it('replaces the whole path where no prefix was asked for', () => {
      const routes = new RequestRoutes([route({ rewrite: { path: '/one' } })]);
      expect(routes.decide(requestView('GET', '/a/b?q'), never)?.path).toBe('/one?q');
    });
  });

  it.each([
    [{ status: 301, path: '/new' } as const, '/new?q=1'],
    [{ status: 302, host: 'other.example' } as const, 'http://other.example/old?q=1'],
    [{ status: 307, scheme: 'https' } as const, 'https://shop.mesh/old?q=1'],
    [{ status: 308, scheme: 'https', host: 'o', path: '/n' } as const, 'https://o/n?q=1'],
  ])('redirects: %j', (redirect, location) => {
    const routes = new RequestRoutes([route({ redirect })]);
    const view = requestView('GET', '/old?q=1', { host: 'shop.mesh' });
    expect(routes.decide(view, never)?.redirect).toEqual({ status: redirect.status, location });
  });
});
