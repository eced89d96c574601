import { describe, expect, test } from 'vitest';
import { parseService } from '../../src/registry/catalogue-record.ts';
import { readHealth, readNames } from '../../src/registry/consul-records.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

/** As Consul's documentation shows an answer of /v1/health/service/NAME. */
const health = Buffer.from(
  JSON.stringify(
    [1, 2].map((i) => ({
      Node: {
        Node: 'foobar',
        Address: '10.1.10.12',
        Datacenter: 'dc1',
        Meta: { 'mesh-node-tunnel': '15008' },
      },
      Service: {
        ID: 'redis',
        Service: 'redis',
        Tags: ['primary', 'version=2'],
        Address: `10.1.10.${i}`,
        Meta: { redis_version: '4.0', 'mesh-node-zone': 'dc1', 'mesh-node-protocol': 'redis' },
        Port: 8000,
        Weights: { Passing: 10, Warning: 1 },
      },
      Checks: [{ CheckID: 'service:redis', Status: 'passing', ServiceTags: ['primary'] }],
    })),
  ),
);
const names = Buffer.from('{"consul":[],"redis":["primary"],"postgresql":["primary","secondary"]}');
const defaults = { zone: 'here', balance: 'round-robin' } as const;
const name = 'redis' as never;

describe('answers of Consul', () => {
  test('as they are documented, are read', () => {
    expect(readHealth(name, JSON.parse(health.toString()), defaults)).toMatchObject({
      problems: [],
      nodes: [{ name: 'foobar' }],
      service: { protocol: 'redis', instances: [{ id: '10.1.10.1:8000' }, { id: '10.1.10.2:8000' }] },
    });
    expect([...readNames(JSON.parse(names.toString()), ['primary'])!.names]).toEqual(['redis', 'postgresql']);
  });

  test('damaged, end in a valid service or in none', () => {
    const random = new FuzzRandom(fuzzSeed('consul-answers'));
    let read = 0;
    for (let run = 0; run < fuzzRuns; run++) {
      const list = random.below(4) === 0;
      const body = parsed(random, list ? names : health);
      if (list) {
        const found = readNames(body, []);
        for (const problem of found?.problems ?? []) expect(problem.length).toBeLessThan(1000);
        continue;
      }
      const found = readHealth(name, body, defaults);
      if (found === undefined) continue;
      read++;
      if (parseService(found.service) === undefined) throw new Error(JSON.stringify(body));
      for (const problem of found.problems) expect(problem.length).toBeLessThan(2000);
    }
    expect(read).toBeGreaterThan(0);
  });
});

/** Damaged text that is JSON still, or values of the wrong kind in its place. */
function parsed(random: FuzzRandom, text: Buffer): unknown {
  const odd = [
    null,
    0,
    -1,
    1.5,
    65_536,
    '',
    'x'.repeat(2000),
    [],
    {},
    [null],
    { __proto__: 1 },
    '\u0000',
    true,
  ];
  const swap = (_key: string, value: unknown) =>
    random.below(20) === 0 ? odd[random.below(odd.length)] : value;
  try {
    return JSON.parse(random.below(3) === 0 ? random.mutated(text).toString() : text.toString(), swap);
  } catch {
    return odd[random.below(odd.length)];
  }
}
