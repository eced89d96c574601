import { describe, expect, test } from 'vitest';
import { parseEndpoint } from '../../../src/model/address.ts';
import {
  type Instance,
  type MeshNode,
  parseInstanceId,
  parseNodeName,
  parseServiceName,
  type Service,
} from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type SnapshotDelta } from '../../../src/model/snapshot.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import { registryLimits } from '../../../src/registry/limits.ts';
import type { Source, SourceListener, SourceStatus, SourceUpdate } from '../../../src/registry/source.ts';
import { quiet } from './source.conformance.ts';

class Told implements Source {
  readonly name: string;
  status: SourceStatus = {
    state: 'connecting',
    since: 1,
    confirmedAt: undefined,
    lastError: undefined,
    problems: [],
  };
  lookup?: NonNullable<Source['lookup']>;
  #listener: SourceListener | undefined;

  constructor(name: string) {
    this.name = name;
  }
  start(listener: SourceListener): void {
    this.#listener = listener;
  }
  stop(): Promise<void> {
    return Promise.resolve();
  }
  tell(update: SourceUpdate): void {
    this.status = { ...this.status, state: 'synced', confirmedAt: 1234 };
    this.#listener!.update(update);
  }
  full(services: Service[], nodes: MeshNode[] = [], complete = true): void {
    this.tell({ kind: 'full', services, nodes, complete });
  }
  change(services: Service[], removed: string[] = []): void {
    const removedServices = removed.map((name) => parseServiceName(name)!);
    this.tell({ kind: 'change', services, removedServices, nodes: [], removedNodes: [] });
  }
}

const instance = (text: string, more: Partial<Instance> = {}): Instance => ({
  id: parseInstanceId(text)!,
  address: parseEndpoint(text)!,
  zone: 'z',
  labels: {},
  weight: 100,
  draining: false,
  ...more,
});
const service = (name: string, instances: Instance[] = [], more: Partial<Service> = {}): Service => ({
  name: parseServiceName(name)!,
  protocol: 'auto',
  mode: 'permissive',
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  instances,
  ...more,
});
const node = (name: string, zone = 'z'): MeshNode => ({
  name: parseNodeName(name)!,
  zone,
  tunnel: parseEndpoint('10.0.0.1:15008')!,
});
const one = instance('10.0.0.1:80');
const two = instance('10.0.0.2:80');

function catalogueOf(...names: string[]) {
  const sources = names.map((name) => new Told(name));
  const catalogue = new Catalogue(sources, quiet);
  const deltas: SnapshotDelta[] = [];
  catalogue.listen({ delta: (delta) => deltas.push(delta) });
  return { catalogue, sources, deltas };
}

const named = (catalogue: Catalogue) =>
  Array.from(catalogue.snapshot.services.values(), (s) => s.name as string).sort();

describe('deltas', () => {
  test('only what changed is told, each on the version before', () => {
    const {
      catalogue,
      sources: [a],
      deltas,
    } = catalogueOf('a');
    catalogue.start();
    a!.full([service('web', [one]), service('db', [two])], [node('n')]);
    expect(deltas.map((delta) => delta.services.length)).toEqual([2]);
    a!.full([service('web', [one, two]), service('db', [two])], [node('n')]);
    a!.full([service('web', [one, two])], []);
    expect(
      deltas.map((d) => [d.base, d.services.map((s) => s.name), d.removedServices, d.removedNodes]),
    ).toEqual([
      [0, ['web', 'db'], [], []],
      [1, ['web'], [], []],
      [2, [], ['db'], ['n']],
    ]);
  });

  test('the same said again, in another order, is no delta', () => {
    const {
      catalogue,
      sources: [a],
      deltas,
    } = catalogueOf('a');
    catalogue.start();
    const labelled = (labels: Record<string, string>) => instance('10.0.0.3:1', { labels });
    a!.full([service('web', [two, one, labelled({ x: '1', y: '2' })]), service('db')], [node('n')]);
    a!.full([service('db'), service('web', [labelled({ y: '2', x: '1' }), one, two])], [node('n')]);
    a!.change([service('db')], ['unknown']);
    expect(deltas).toHaveLength(1);
    const ids = catalogue.snapshot.services
      .get(parseServiceName('web')!)!
      .instances.map((i) => i.id as string);
    expect(ids).toEqual(['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:1']);
  });

  test.each<[string, Service]>([
    ['protocol', service('web', [one], { protocol: 'http' })],
    ['mode', service('web', [one], { mode: 'strict' })],
    ['interchangeable', service('web', [one], { interchangeable: true })],
    ['balance', service('web', [one], { balance: 'least-connections' })],
    ['hosts', service('web', [one], { hosts: ['w'] })],
    ['addresses', service('web', [one], { addresses: [parseEndpoint('10.1.1.1:1')!] })],
    ['id', service('web', [{ ...one, id: parseInstanceId('x')! }])],
    ['port', service('web', [{ ...one, address: parseEndpoint('10.0.0.1:81')! }])],
    ['address', service('web', [{ ...one, address: parseEndpoint('10.0.0.9:80')! }])],
    ['node', service('web', [{ ...one, node: parseNodeName('n')! }])],
    ['zone', service('web', [{ ...one, zone: 'y' }])],
    ['weight', service('web', [{ ...one, weight: 1 }])],
    ['draining', service('web', [{ ...one, draining: true }])],
    ['label', service('web', [{ ...one, labels: { a: 'b' } }])],
  ])('another %s is a delta', (_what, changed) => {
    const {
      catalogue,
      sources: [a],
      deltas,
    } = catalogueOf('a');
    catalogue.start();
    a!.full([service('web', [one])]);
    a!.full([changed]);
    expect(deltas).toHaveLength(2);
  });

  test('a large change comes in parts of bounded weight, nodes first', () => {
    const {
      catalogue,
      sources: [a],
      deltas,
    } = catalogueOf('a');
    catalogue.start();
    const many = Array.from({ length: 500 }, (_, i) =>
      service(
        `s${i}`,
        Array.from({ length: 10 }, (_, j) => instance(`10.0.${i % 250}.${j + 1}:${1000 + i}`)),
      ),
    );
    a!.full(many, [node('n')]);
    expect(deltas.length).toBeGreaterThanOrEqual(6);
    for (const delta of deltas) {
      expect(
        delta.services.reduce((sum, s) => sum + 1 + s.instances.length, delta.nodes.length),
      ).toBeLessThanOrEqual(1000);
    }
    expect(deltas[0]!.nodes).toHaveLength(1);
    expect(catalogue.snapshot.version).toBe(deltas.length);

    const full = catalogue.full();
    let snapshot = { ...emptySnapshot, version: full[0]!.base };
    for (const delta of full) snapshot = { ...applyDelta(snapshot, delta) };
    expect(snapshot.version).toBe(catalogue.snapshot.version);
    expect(new Map(snapshot.services)).toEqual(new Map(catalogue.snapshot.services));
    expect(new Map(snapshot.destinations)).toEqual(new Map(catalogue.snapshot.destinations));
  });

  test('the full chain of an empty catalogue ends at its version', () => {
    const { catalogue } = catalogueOf('a');
    const [delta, ...rest] = catalogue.full();
    expect(rest).toEqual([]);
    expect(applyDelta({ ...emptySnapshot, version: delta!.base }, delta!).version).toBe(0);
  });
});

describe('several sources', () => {
  test('the earlier wins, whoever came first; the later takes over when it lets go', () => {
    const {
      catalogue,
      sources: [a, b],
      deltas,
    } = catalogueOf('a', 'b');
    catalogue.start();
    b!.full([service('web', [two]), service('b-only')], [node('n', 'b')]);
    expect(catalogue.provenance(parseServiceName('web')!)).toMatchObject({
      source: 'b',
      origin: 'live',
      confirmedAt: 1234,
    });
    a!.full([service('web', [one])], [node('n', 'a')]);
    expect(catalogue.snapshot.services.get(parseServiceName('web')!)!.instances).toEqual([one]);
    expect(catalogue.provenance(parseServiceName('web')!)?.source).toBe('a');
    expect(catalogue.nodeProvenance(parseNodeName('n')!)?.source).toBe('a');
    expect(catalogue.status.conflicts).toEqual([{ service: 'web', used: 'a', ignored: ['b'] }]);
    b!.full([service('web', [one]), service('b-only')], [node('n', 'b')]);
    expect(catalogue.status.conflictCount).toBe(0);
    b!.full([service('web', [two]), service('b-only')], [node('n', 'b')]);
    const before = deltas.length;
    a!.full([]);
    expect(deltas.slice(before)).toMatchObject([
      { services: [{ name: 'web', instances: [two] }], nodes: [{ zone: 'b' }] },
    ]);
    expect(catalogue.status.conflictCount).toBe(0);
    expect(catalogue.provenance(parseServiceName('absent')!)).toBeUndefined();
  });

  test('two of the same name are refused', () => {
    expect(() => catalogueOf('a', 'a')).toThrow(/registry a is configured twice/);
  });

  test('on-demand answers: the first that knows; a failure counts only when nobody knows', async () => {
    const {
      catalogue,
      sources: [a, b],
    } = catalogueOf('a', 'b');
    const question = { kind: 'service', name: parseServiceName('web')! } as const;
    const signal = new AbortController().signal;
    expect(await catalogue.lookup(question, signal)).toBeUndefined();
    a!.lookup = () => Promise.reject(new Error('down'));
    await expect(catalogue.lookup(question, signal)).rejects.toMatchObject({
      code: 'registry',
      retry: 'safe',
    });
    b!.lookup = async () => service('web');
    expect((await catalogue.lookup(question, signal))?.name).toBe('web');
  });
});

describe('what the cache remembers', () => {
  const remembered = () => {
    const {
      catalogue,
      sources: [a, b],
    } = catalogueOf('a', 'b');
    catalogue.start();
    a!.full([service('a1', [one]), service('shared', [one])], [node('na')]);
    b!.full([service('b1', [two]), service('shared', [two])], [node('nb')]);
    return [...catalogue.records()];
  };

  test('is replaced source by source, when each answers', () => {
    const {
      catalogue,
      sources: [a, b],
      deltas,
    } = catalogueOf('a', 'b');
    catalogue.seed(remembered());
    expect(named(catalogue)).toEqual(['a1', 'b1', 'shared']);
    expect(catalogue.snapshot.nodes.size).toBe(2);
    expect(catalogue.provenance(parseServiceName('b1')!)).toMatchObject({
      source: 'b',
      origin: 'cache',
      confirmedAt: 1234,
    });
    catalogue.start();
    a!.full([service('a2')]);
    expect(named(catalogue)).toEqual(['a2', 'b1', 'shared']);
    expect(catalogue.snapshot.services.get(parseServiceName('shared')!)!.instances).toEqual([two]);
    const before = deltas.length;
    b!.full([service('b1', [two]), service('shared', [two])], [node('nb')]);
    expect(deltas).toHaveLength(before);
    expect(catalogue.provenance(parseServiceName('b1')!)?.origin).toBe('live');
    expect(catalogue.status.registries.map((registry) => registry.cached)).toEqual([false, false]);
  });

  test('stays beside an answer that cannot be all', () => {
    const {
      catalogue,
      sources: [a],
    } = catalogueOf('a', 'b');
    catalogue.seed(remembered());
    catalogue.start();
    a!.full([service('a2')], [], false);
    expect(named(catalogue)).toEqual(['a1', 'a2', 'b1', 'shared']);
    a!.change([], ['a1']);
    expect(named(catalogue)).toEqual(['a2', 'b1', 'shared']);
    a!.full([service('a2')]);
    expect(named(catalogue)).toEqual(['a2', 'b1', 'shared']);
    expect(catalogue.provenance(parseServiceName('shared')!)?.source).toBe('b');
  });

  test('of a source that is no longer configured is forgotten', () => {
    const { catalogue } = catalogueOf('b');
    catalogue.seed(remembered());
    expect(named(catalogue)).toEqual(['b1', 'shared']);
  });
});

test('a source that passes a bound loses the entries beyond it, not the rest', () => {
  const {
    catalogue,
    sources: [a],
  } = catalogueOf('a');
  catalogue.start();
  const large = Array.from({ length: registryLimits.instancesPerService + 1 }, (_, i) =>
    instance(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:1`),
  );
  a!.full([
    service('large', large),
    ...Array.from({ length: registryLimits.services + 5 }, (_, i) => service(`s${i}`)),
  ]);
  expect(catalogue.status.services).toBe(registryLimits.services);
  expect(catalogue.status.registries[0]!.refused).toBe(6);
  a!.full([service('large', [one])]);
  expect(catalogue.status.registries[0]).toMatchObject({ refused: 0, services: 1, instances: 1 });
});
