import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Route, ServicePolicy } from '../../../src/model/policy.ts';
import { turn } from '../proxy/memory-channel.ts';
import { ChannelMesh, instanceOf, retriesWith } from './channel-mesh.ts';

const GET = 'GET /a?q=1 HTTP/1.1\r\nHost: web\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
const BUSY = 'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy';

let mesh: ChannelMesh;
beforeEach(() => {
  ChannelMesh.install();
  mesh = new ChannelMesh();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A route for everything. */
function route(some: Partial<Route>): ServicePolicy {
  return { routes: [{ name: 'all', matches: [], percent: 100, ...some }] };
}

describe('a route', () => {
  it('takes a request to a subset, and says so where that is empty', () => {
    mesh.instances = [instanceOf('1', { version: 'v1' }), instanceOf('2', { version: 'v2' })];
    mesh.policy = route({ to: [{ subset: { version: 'v2' }, weight: 1 }] });
    const caller = mesh.call(GET);
    expect(mesh.to).toBe('2');
    mesh.last.answers(OK);
    expect(mesh.records[0]).toMatchObject({ route: 'all', instance: '2' });
    mesh.policy = route({ to: [{ subset: { version: 'v3' }, weight: 1 }] });
    caller.says(GET);
    expect(caller.text).toMatch(/HTTP\/1\.1 503 .*mesh-error: no-instance\r\n.*subset version=v3/s);
    expect(caller.ended).toBe(false);
  });

  it('gives the key of a hash', () => {
    mesh.policy = {
      balance: {
        ...{ algorithm: 'ring-hash', hash: { kind: 'header', name: 'x-user' }, boundedLoad: 125 },
        ...{ slowStart: 0, overflowBelow: 0, minimumNear: 0 },
      },
    };
    mesh.call('GET / HTTP/1.1\r\nHost: web\r\nX-User: ann\r\n\r\n');
    mesh.call(GET);
    expect(mesh.choices).toEqual([{ key: 'ann' }, undefined]);
  });

  it('rewrites path and host, and leaves the query', () => {
    mesh.policy = route({ rewrite: { path: '/new', host: 'other:8080' } });
    mesh.call(GET);
    expect(mesh.last.text).toMatch(/^GET \/new\?q=1 HTTP\/1\.1\r\nhost: other:8080\r\n/);
    expect(mesh.last.text).toContain('x-forwarded-host: web\r\n');
  });

  it('that makes no valid request is the operator’s fault, and nobody is asked', () => {
    mesh.policy = route({ rewrite: { host: 'no host' } });
    const caller = mesh.call(GET);
    expect(caller.text).toMatch(/^HTTP\/1\.1 500 .*mesh-error: configuration\r\n/s);
    expect(mesh.dialled).toHaveLength(0);
    mesh.policy = route({ redirect: { status: 302, host: 'x\r\nset-cookie: a=b' } });
    caller.says(GET);
    expect(caller.text).not.toMatch(/\n(?:set-cookie|location)/);
    expect(caller.text.match(/HTTP\/1\.1 500/g)).toHaveLength(2);
  });

  it('redirects', () => {
    mesh.policy = route({ redirect: { status: 308, scheme: 'https', host: 'new.example', path: '/b' } });
    const caller = mesh.call(GET);
    expect(caller.text).toMatch(/^HTTP\/1\.1 308 Permanent Redirect\r\n.*mesh-error: redirect\r\n/s);
    expect(caller.text).toContain('\r\nlocation: https://new.example/b?q=1\r\n');
    expect(caller.ended).toBe(false);
    expect(mesh.records[0]).toMatchObject({ status: 308, reason: 'redirect', route: 'all', attempts: 0 });
  });

  it('holds requests back and fails them, for tests', async () => {
    mesh.policy = route({
      fault: { delay: { duration: 500, percent: 100 }, abort: { status: 418, percent: 100 } },
    });
    const caller = mesh.call(POST);
    await mesh.pass(499);
    expect(caller.text).toBe('');
    await mesh.pass(1);
    expect(caller.text).toMatch(/^HTTP\/1\.1 418 .*mesh-error: fault\r\n/s);
    expect(caller.ended).toBe(false);
    expect(mesh.dialled).toHaveLength(0);
    mesh.policy = route({ fault: { delay: { duration: 500, percent: 100 } } });
    caller.says(POST);
    caller.close({ reason: 'reset', delivered: true });
    await mesh.pass(1000);
    expect(mesh.dialled).toHaveLength(0);
    expect(mesh.records.map(({ reason }) => reason)).toEqual(['fault', 'client-reset']);
    mesh.call(POST);
    await mesh.pass(500);
    expect(mesh.last.text).toMatch(/^POST .*body$/s);
  });

  it('fails the share of requests that it names', () => {
    mesh.policy = route({ fault: { abort: { status: 500, percent: 30 } } });
    mesh.random = () => 0.31;
    mesh.call(GET);
    expect(mesh.dialled).toHaveLength(1);
    mesh.random = () => 0.29;
    expect(mesh.call(GET).text).toMatch(/^HTTP\/1\.1 500 /);
  });

  it('has timeouts and retries of its own, in the place of the service’s', () => {
    mesh.policy = {
      ...route({ retries: retriesWith({ attempts: 0 }), timeouts: {} }),
      ...{ retries: retriesWith({ attempts: 2 }), timeouts: { request: 10 } },
    };
    const caller = mesh.call(GET);
    mesh.last.answers(BUSY);
    expect(caller.text).toBe(BUSY);
  });
});

describe('a request', () => {
  it('keeps the plan it began with, and the next one has the new', async () => {
    mesh.policy = { retries: retriesWith({ backoff: { base: 100, max: 100 } }), timeouts: { request: 1000 } };
    const caller = mesh.call(GET);
    mesh.last.answers(BUSY);
    mesh.policy = route({ redirect: { status: 302, path: '/elsewhere' } });
    await mesh.pass(50);
    mesh.last.answers(OK);
    expect(caller.text).toBe(OK);
    caller.says(GET);
    expect(caller.text).toMatch(/HTTP\/1\.1 302 .*location: \/elsewhere\?q=1\r\n/s);
  });

  it('that is held back is told why, and when to come again', () => {
    const held: unknown[] = [];
    mesh.policy = { rateLimits: [] };
    mesh.limits = {
      rates: {
        admit: (service, _policy, caller) => {
          held.push([service, caller.program, caller.address]);
          return { limit: 'all', retryAfterMs: 1200 };
        },
      },
      services: { breaker: () => undefined, request: () => {}, tryRetry: () => false },
    };
    const caller = mesh.call(GET);
    expect(caller.text).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\n.*mesh-error: rate-limit\r\n/s);
    expect(caller.text).toContain('\r\nretry-after: 2\r\n');
    expect(held).toEqual([['web', 'unit:a.service', '10.0.0.9']]);
    expect(mesh.dialled).toHaveLength(0);
  });

  it('holds its place in a circuit breaker to its end, and a retry its own', async () => {
    const taken = { requests: 0, retries: 0 };
    let most = 1;
    mesh.policy = { circuitBreaker: { requests: 1 }, retries: retriesWith({}) };
    mesh.limits = {
      rates: { admit: () => undefined },
      services: {
        breaker: () => ({
          tryAcquire: (resource) => {
            if (taken[resource] >= most) return false;
            taken[resource]++;
            return true;
          },
          release: (resource) => taken[resource]--,
        }),
        request: () => {},
        tryRetry: () => true,
      },
    };
    const caller = mesh.call(GET);
    const other = mesh.call(GET);
    expect(other.text).toMatch(/^HTTP\/1\.1 503 .*mesh-error: overload\r\n/s);
    mesh.last.answers(BUSY);
    mesh.last.answers(BUSY);
    expect(taken).toEqual({ requests: 1, retries: 1 });
    most = 2;
    const gone = mesh.call(GET);
    gone.close({ reason: 'reset', delivered: true });
    mesh.dialled[2]!.answers(OK);
    await turn();
    expect(caller.text).toBe(OK);
    expect(taken).toEqual({ requests: 0, retries: 0 });
  });
});
