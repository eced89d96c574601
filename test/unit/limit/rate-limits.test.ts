import { beforeEach, describe, expect, test } from 'vitest';
import { RateLimits } from '../../../src/limit/rate-limits.ts';
import { SHARED_BYTES, SharedBuckets } from '../../../src/limit/shared-buckets.ts';
import type { RateLimit, ServicePolicy } from '../../../src/model/policy.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { type CallerView, HeadView } from '../../../src/policy/match/request-view.ts';

const WEB = 'web' as ServiceName;
const MS = 1_000_000n;

let now: bigint;
let buckets: SharedBuckets | undefined;
let refused: string[];

const limits = () =>
  new RateLimits({
    buckets: () => buckets,
    now: () => now,
    onRefused: (service, limit) => refused.push(`${service} ${limit}`),
  });

function policy(...rateLimits: Partial<RateLimit>[]): ServicePolicy {
  const base: RateLimit = {
    ...{ name: 'all', per: { kind: 'service' }, count: 10, interval: 1000, burst: 2, matches: [] },
  };
  return { rateLimits: rateLimits.map((each) => ({ ...base, ...each })) };
}

function caller(program: string | undefined, address = '10.0.0.1'): CallerView {
  return { service: undefined, program, node: undefined, address };
}

function request(target: string, headers: Readonly<Record<string, string>> = {}) {
  const fields = { joined: (name: string) => headers[name] };
  return new HeadView({ method: 'GET', authority: 'web', path: target, fields }, caller('unit:a.service'));
}

beforeEach(() => {
  now = 1000n * MS;
  buckets = new SharedBuckets(new ArrayBuffer(SHARED_BYTES));
  refused = [];
});

describe('rate limits', () => {
  test('a service: its burst, then one each tenth of a second, and how long to wait', () => {
    const subject = limits();
    const sent = policy({});
    const ask = () => subject.admit(WEB, sent, caller('unit:a.service'), request('/'));
    expect([ask(), ask()]).toEqual([undefined, undefined]);
    expect(ask()).toEqual({ limit: 'all', retryAfterMs: 100 });
    expect(refused).toEqual(['web all']);
    now += 100n * MS;
    expect(ask()).toBeUndefined();
  });

  test('callers apart, by program, else by address', () => {
    const subject = limits();
    const sent = policy({ per: { kind: 'caller' }, burst: 1 });
    const ask = (who: CallerView) => subject.admit(WEB, sent, who, undefined)?.limit;
    expect(ask(caller('unit:a.service'))).toBeUndefined();
    expect(ask(caller('unit:a.service', '10.0.0.9'))).toBe('all');
    expect(ask(caller('unit:b.service'))).toBeUndefined();
    expect(ask(caller('unknown'))).toBeUndefined();
    expect(ask(caller(undefined))).toBe('all');
    expect(ask(caller(undefined, '10.0.0.2'))).toBeUndefined();
  });

  test('a header: values apart; without it, and for connections, there is no limit', () => {
    const subject = limits();
    const sent = policy({ per: { kind: 'header', name: 'x-user' }, burst: 1 });
    const ask = (user?: string) =>
      subject.admit(
        WEB,
        sent,
        caller('unit:a.service'),
        request('/', user === undefined ? {} : { 'x-user': user }),
      )?.limit;
    expect([ask('eve'), ask('eve'), ask('bob'), ask(), ask()]).toEqual([
      ...[undefined, 'all', undefined, undefined, undefined],
    ]);
    expect(subject.admit(WEB, sent, caller('unit:a.service'), undefined)).toBeUndefined();
  });

  test('only what matches; the first limit without room answers', () => {
    const subject = limits();
    const sent = policy(
      { name: 'login', burst: 1, matches: [{ path: { kind: 'prefix', value: '/login' } }] },
      { name: 'all', burst: 3 },
    );
    const ask = (target: string) =>
      subject.admit(WEB, sent, caller('unit:a.service'), request(target))?.limit;
    expect([ask('/login'), ask('/login'), ask('/'), ask('/'), ask('/')]).toEqual([
      ...[undefined, 'login', undefined, undefined, 'all'],
    ]);
    // A connection has no path.
    expect(subject.admit(WEB, sent, caller('unit:a.service'), undefined)?.limit).toBe('all');
  });

  test('services of the same limit do not know of each other', () => {
    const subject = limits();
    const sent = policy({ burst: 1 });
    for (const name of ['web', 'api'] as ServiceName[]) {
      expect(subject.admit(name, sent, caller(undefined), undefined)).toBeUndefined();
    }
  });

  test('without memory to share, or without a policy, nothing is refused', () => {
    const subject = limits();
    buckets = undefined;
    for (let i = 0; i < 9; i++)
      expect(subject.admit(WEB, policy({}), caller(undefined), undefined)).toBeUndefined();
    expect(subject.admit(WEB, {}, caller(undefined), undefined)).toBeUndefined();
  });
});
