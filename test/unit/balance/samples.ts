import { Balancer, type PickToken } from '../../../src/balance/balancer.ts';
import type { HealthTransition } from '../../../src/balance/health.ts';
import { PeakEwma } from '../../../src/balance/peak-ewma.ts';
import type { Candidate, Picker } from '../../../src/balance/pickers/picker.ts';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { Balance, Outlier, ServicePolicy, Subset } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';

export const NONE: ReadonlySet<Instance> = new Set();

export const locality = { node: 'here' as NodeName, zone: 'a', otherZones: ['b', 'c'] };

export const plainEjection = { ejectAfter: 3, ejectBase: 1000, ejectMax: 8000, maxEjectedPercent: 50 };

export function instance(id: string, change: Partial<Instance> = {}): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint('10.0.0.1:80') as Endpoint,
    zone: 'a',
    labels: {},
    weight: 100,
    draining: false,
    ...change,
  };
}

export function instances(count: number, change: Partial<Instance> = {}): Instance[] {
  return Array.from({ length: count }, (_, i) => instance(`i${i}`, change));
}

export function service(of: readonly Instance[], change: Partial<Service> = {}): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'http',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: of,
    ...change,
  };
}

export function balance(change: Partial<Balance> = {}): Balance {
  return { boundedLoad: 125, slowStart: 0, overflowBelow: 0, minimumNear: 1, ...change };
}

export function outlier(change: Partial<Outlier> = {}): Outlier {
  return {
    consecutiveErrors: 3,
    interval: 10_000,
    baseEjection: 1000,
    maxEjection: 2500,
    maxEjectedPercent: 50,
    panicThreshold: 0,
    ...change,
  };
}

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
export function seeded(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A balancer whose clock and chance are the test's. */
export function setup(policy: ServicePolicy = {}) {
  const clock = { now: 0 };
  const said: { policy: ServicePolicy } = { policy };
  const transitions: string[] = [];
  const forgotten: string[] = [];
  const used: string[] = [];
  const balancer = new Balancer({
    locality,
    ejection: plainEjection,
    policy: () => said.policy,
    now: () => clock.now,
    random: seeded(),
    onTransition: ({ instance: id, from, to, reason }: HealthTransition) =>
      transitions.push(`${id} ${from} → ${to}: ${reason}`),
    onForgotten: (_service, id) => forgotten.push(id),
    onUse: ({ name }) => used.push(name),
  });
  /** A request that is answered so. */
  const ask = (of: Service, target: Instance, status: number, milliseconds = 10): void => {
    const token = balancer.started(of, target);
    token.answered(status, milliseconds);
    token.finished();
  };
  /** A connection that fails, or opens. */
  const connect = (of: Service, target: Instance, reached: boolean): void => {
    const token = balancer.started(of, target);
    if (reached) token.connected();
    else token.failed();
    token.finished();
  };
  /** How often each is picked; nothing stays active. */
  const picks = (of: Service, times: number, subset?: Subset): Record<string, number> => {
    const counts: Record<string, number> = {};
    for (let i = 0; i < times; i++) {
      const id = balancer.pick(of, NONE, subset === undefined ? {} : { subset })?.id ?? 'none';
      counts[id] = (counts[id] ?? 0) + 1;
    }
    return counts;
  };
  const view = (of: Service, id: string) => balancer.view(of.name).find((one) => one.id === id);
  return { balancer, clock, said, transitions, forgotten, used, ask, connect, picks, view };
}

/** Load that a test sets. */
export interface TestLoad {
  active: number;
  readonly latency: PeakEwma;
}

export type TestCandidate = Candidate & { readonly load: TestLoad };

/** Candidates of these weights, idle. */
export function candidates(weights: readonly number[], share = 1): TestCandidate[] {
  return weights.map((weight, i) => ({
    instance: instance(`i${i}`, { weight }),
    load: { active: 0, latency: new PeakEwma(30, 0) },
    weight: weight * share,
    share,
  }));
}

/** How often each is picked, by index. */
export function tally(picker: Picker, of: readonly Candidate[], times: number): number[] {
  const counts = of.map(() => 0);
  for (let i = 0; i < times; i++) {
    const picked = picker.pick(NONE)!;
    counts[of.findIndex((one) => one.instance === picked)]!++;
  }
  return counts;
}

/**
 * Pearson's chi-square of counts against shares, divided by its mean (the number of shares less one): near 1 for counts
 * that chance alone explains; above 3 with nine or more shares it does not, in less than one of a thousand cases.
 */
export function chiSquare(counts: readonly number[], shares: readonly number[]): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const whole = shares.reduce((sum, share) => sum + share, 0);
  const sum = counts.reduce((all, count, i) => {
    const expected = (total * shares[i]!) / whole;
    return all + (count - expected) ** 2 / expected;
  }, 0);
  return sum / (counts.length - 1);
}

/** Ends all of these. */
export function finish(tokens: readonly PickToken[]): void {
  for (const token of tokens) token.finished();
}
