import { Balancer } from '../../src/balance/balancer.ts';
import { HashRing } from '../../src/balance/pickers/hash-ring.ts';
import { parseEndpoint } from '../../src/model/address.ts';
import { type BalanceAlgorithm, balanceAlgorithms } from '../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../src/model/service.ts';
import { measure } from './measure.ts';

/*
 * What balancing costs for each request, without any I/O:
 *
 *   npx tsc -p tsconfig.tools.json && node build/bench/micro/balance.js
 *
 * A pick is to stay near a microsecond, with a thousand instances as with ten.
 */

const NONE: ReadonlySet<Instance> = new Set();

function service(count: number, weight: (index: number) => number): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'http',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: Array.from({ length: count }, (_, i) => ({
      id: `10.0.${i >> 8}.${i & 255}:80` as InstanceId,
      address: parseEndpoint(`10.0.${i >> 8}.${i & 255}:80`)!,
      zone: 'a',
      labels: { version: i % 2 === 0 ? '1' : '2' },
      weight: weight(i),
      draining: false,
    })),
  };
}

function balancer(algorithm: BalanceAlgorithm): Balancer {
  const policy = {
    balance: { algorithm, boundedLoad: 125, slowStart: 0, overflowBelow: 70, minimumNear: 1 },
    outlier: {
      ...{ consecutiveErrors: 5, interval: 10_000, baseEjection: 30_000, maxEjection: 300_000 },
      ...{ maxEjectedPercent: 50, panicThreshold: 50 },
      latency: { minimumInstances: 3, minimumRequests: 100, factor: 3, atLeast: 50 },
    },
  };
  return new Balancer({
    locality: { node: 'here' as NodeName, zone: 'a', otherZones: [] },
    ejection: { ejectAfter: 5, ejectBase: 5000, ejectMax: 300_000, maxEjectedPercent: 50 },
    policy: () => policy,
  });
}

const keys = Array.from({ length: 1024 }, (_, i) => `session-${i}-0af7651916cd43dd8448eb211c80319c`);

for (const count of [10, 100, 1000]) {
  const even = service(count, () => 100);
  const uneven = service(count, (i) => 50 + (i % 7));
  for (const algorithm of balanceAlgorithms) {
    for (const [kind, of] of [
      ['even', even],
      ['uneven', uneven],
    ] as const) {
      const picks = balancer(algorithm);
      // Some are busy.
      for (let i = 0; i < count; i += 3) picks.started(of, of.instances[i]!);
      let at = 0;
      measure(`pick: ${algorithm}, ${count} instances, ${kind}`, () => {
        at = (at + 1) & 1023;
        picks.pick(of, NONE, { key: keys[at]! });
      });
    }
  }
  const whole = balancer('peak-ewma');
  measure(`pick, start, answer, finish: peak-ewma, ${count} instances`, () => {
    const token = whole.started(even, whole.pick(even, NONE)!);
    token.answered(200, 5);
    token.finished();
  });
  measure(`build a ring of ${count} instances`, () => new HashRing(even.instances), 5);
}
