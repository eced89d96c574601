import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SetPlanner } from '../../../src/capture/capture-plan.ts';
import { families, setRoles } from '../../../src/capture/names.ts';
import { type EndpointKey, type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';

const endpoint = (text: string) => parseEndpoint(text)!;
function instance(address: string, over: Partial<Instance> = {}): Instance {
  const id = address as InstanceId;
  return { id, address: endpoint(address), zone: 'z', labels: {}, weight: 100, draining: false, ...over };
}
function service(name: string, instances: readonly Instance[], over: Partial<Service> = {}): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances,
    ...over,
  };
}
const withServices = (snapshot: Snapshot, services: readonly Service[], removed: readonly string[] = []) =>
  applyDelta(snapshot, {
    base: snapshot.version,
    services,
    removedServices: removed as ServiceName[],
    nodes: [],
    removedNodes: [],
  });
/** The members of every set, by role. */
function membersOf(planner: SetPlanner): Record<string, string[]> {
  return Object.fromEntries(
    setRoles.map((role) => [
      role,
      families.flatMap((family) => Array.from(planner.plan[role][family], ([key]) => key as string)).sort(),
    ]),
  );
}
const planner = (services: readonly string[] = []) => new SetPlanner({ node: 'here', services });

describe('what the sets are to hold', () => {
  it("redirects every address but this host's own, and keeps strict and hosted ones", () => {
    const here = planner();
    here.update(
      withServices(emptySnapshot, [
        service('a', [instance('10.0.0.1:80', { node: 'here' as NodeName }), instance('[fd00::1]:80')], {
          mode: 'strict',
          addresses: [endpoint('10.9.9.9:80')],
          virtual: ['240.0.0.7' as Ip],
        }),
        service('b', [instance('10.0.0.2:80', { node: 'here' as NodeName })]),
        service(
          'c',
          [
            '127.0.0.1',
            '[::1]',
            '[fe80::1]',
            '[ff02::1]',
            '[::]',
            '0.0.0.0',
            '169.254.169.254',
            '224.0.0.1',
          ].map((ip) => instance(`${ip}:80`)),
          { mode: 'strict' },
        ),
      ]),
    );
    expect(membersOf(here)).toEqual({
      strict: ['10.0.0.1:80', '10.9.9.9:80', '240.0.0.7:80', '[fd00::1]:80'],
      hosted: ['10.0.0.1:80'],
      beside: ['10.0.0.2:80'],
      ports: ['*:80', '*:80'],
      down: [],
      redirect: ['10.0.0.1:80', '10.0.0.2:80', '10.9.9.9:80', '240.0.0.7:80', '[fd00::1]:80'],
    });
  });

  it('closes the port of a hosted strict instance at every address but those that others declare here', () => {
    const here = planner();
    const at = (node: string) => ({ node: node as NodeName });
    const vault = service(
      'vault',
      [instance('10.0.0.1:80', at('here')), instance('10.0.0.9:81', at('there'))],
      {
        mode: 'strict',
        addresses: [endpoint('10.0.0.4:80')],
      },
    );
    const web = service(
      'web',
      [
        instance('10.0.0.2:80', at('here')),
        instance('[fd00::2]:80'),
        // Another host's, another port.
        instance('10.0.0.3:80', at('there')),
        instance('10.0.0.2:82', at('here')),
      ],
      { addresses: [endpoint('10.0.0.4:80'), endpoint('10.0.0.5:80')], virtual: ['240.0.0.7' as Ip] },
    );
    // The order in which they become known changes nothing.
    let snapshot = withServices(emptySnapshot, [web]);
    here.update(snapshot);
    expect(membersOf(here)).toMatchObject({ ports: [], beside: [] });
    snapshot = withServices(snapshot, [vault]);
    here.update(snapshot);
    const beside = ['10.0.0.2:80', '10.0.0.5:80', '[fd00::2]:80'];
    expect(membersOf(here)).toMatchObject({ ports: ['*:80', '*:80'], beside });
    // A second service at the port: it stays closed until both have left.
    const second = service('second', [instance('10.0.0.6:80', at('here'))], { mode: 'strict' });
    snapshot = withServices(snapshot, [second]);
    here.update(snapshot);
    snapshot = withServices(snapshot, [{ ...vault, mode: 'permissive' }]);
    here.update(snapshot);
    expect(membersOf(here)).toMatchObject({
      ports: ['*:80', '*:80'],
      beside: ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.4:80', '10.0.0.5:80', '[fd00::2]:80'],
    });
    here.update(withServices(snapshot, [], ['second']));
    expect(membersOf(here)).toMatchObject({ ports: [], beside: [] });
  });

  it('knows addresses that nobody answers for: of services without a live instance, and by experience', () => {
    const here = planner();
    const whole = { addresses: [endpoint('10.9.9.9:80')], ports: [80], virtual: ['240.0.0.7' as Ip] };
    let snapshot = withServices(emptySnapshot, [service('a', [], whole)]);
    here.update(snapshot);
    expect(membersOf(here)['down']).toEqual(['10.9.9.9:80', '240.0.0.7:80']);
    // Draining instances take no new connection; their own addresses say themselves whether they are there.
    snapshot = withServices(snapshot, [service('a', [instance('10.0.0.1:80', { draining: true })], whole)]);
    here.update(snapshot);
    expect(membersOf(here)['down']).toEqual(['10.9.9.9:80', '240.0.0.7:80']);
    // Another service at the same address lives.
    snapshot = withServices(snapshot, [
      service('b', [instance('10.0.0.2:80')], { addresses: whole.addresses }),
    ]);
    here.update(snapshot);
    expect(membersOf(here)['down']).toEqual(['240.0.0.7:80']);
    here.setDown(new Set(['10.0.0.2:80', '10.9.9.9:80'] as EndpointKey[]));
    expect(membersOf(here)['down']).toEqual(['10.0.0.2:80', '10.9.9.9:80', '240.0.0.7:80']);
    here.update(withServices(snapshot, [service('a', [instance('10.0.0.1:80')], whole)]));
    here.setDown(new Set());
    expect(membersOf(here)['down']).toEqual([]);
  });

  it('redirects chosen services only; refusals hold for all', () => {
    const here = planner(['a']);
    here.update(
      withServices(emptySnapshot, [
        service('a', [instance('10.0.0.1:80')]),
        service('b', [instance('10.0.0.2:80')], { mode: 'strict' }),
      ]),
    );
    expect(membersOf(here)).toMatchObject({ redirect: ['10.0.0.1:80'], strict: ['10.0.0.2:80'] });
  });

  it('knows whether a service of this host wants to see its callers', () => {
    const here = planner();
    const far = withServices(emptySnapshot, [
      service('a', [instance('10.0.0.1:80', { node: 'there' as NodeName })], { source: 'transparent' }),
    ]);
    here.update(far);
    expect(here.transparent).toBe(false);
    const near = withServices(far, [
      service('a', [instance('10.0.0.1:80', { node: 'here' as NodeName })], { source: 'transparent' }),
    ]);
    here.update(near);
    expect(here.transparent).toBe(true);
    here.update(withServices(near, [], ['a']));
    expect(here.transparent).toBe(false);
  });

  it('comes to the same by any sequence of changes as from nothing', () => {
    const address = fc.constantFrom('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:81', '[fd00::1]:80');
    const change = fc.record({
      name: fc.constantFrom('a', 'b', 'c'),
      gone: fc.boolean(),
      strict: fc.boolean(),
      interchangeable: fc.boolean(),
      whole: fc.option(address),
      instances: fc.uniqueArray(fc.record({ at: address, here: fc.boolean(), draining: fc.boolean() }), {
        selector: ({ at }) => at,
        maxLength: 3,
      }),
      down: fc.uniqueArray(address, { maxLength: 2 }),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
        const stepwise = planner(['a', 'b']);
        let snapshot: Snapshot = emptySnapshot;
        let down: ReadonlySet<EndpointKey> = new Set();
        for (const { name, gone, strict, interchangeable, whole, instances, down: dead } of changes) {
          const next = service(
            name,
            instances.map(({ at, here, draining }) =>
              instance(at, { draining, ...(here ? { node: 'here' as NodeName } : {}) }),
            ),
            {
              mode: strict ? 'strict' : 'permissive',
              interchangeable,
              addresses: whole === null ? [] : [endpoint(whole)],
            },
          );
          snapshot = gone ? withServices(snapshot, [], [name]) : withServices(snapshot, [next]);
          down = new Set(dead as EndpointKey[]);
          stepwise.update(snapshot);
          stepwise.setDown(down);
        }
        const atOnce = planner(['a', 'b']);
        atOnce.setDown(down);
        atOnce.update(snapshot);
        expect(membersOf(stepwise)).toEqual(membersOf(atOnce));
      }),
      { numRuns: 500 },
    );
  });

  it('costs what changed: one service of 20,000', () => {
    const here = planner();
    const many = Array.from({ length: 20_000 }, (_, i) =>
      service(`s${i}`, [
        instance(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:80`),
        instance(`10.9.${i >> 8}.${i & 255}:81`),
      ]),
    );
    const snapshot = withServices(emptySnapshot, many);
    here.update(snapshot);
    const before = here.plan;
    const next = withServices(snapshot, [service('s7', [instance('10.0.0.8:99')])]);
    const started = performance.now();
    here.update(next);
    // A walk through the catalogue takes some 50 ms.
    expect(performance.now() - started).toBeLessThan(20);
    expect(here.plan.redirect.ipv4.size).toBe(39_999);
    expect(Array.from(here.plan.redirect.ipv4.changesSince(before.redirect.ipv4))).toHaveLength(3);
    expect(here.plan.strict.ipv4).toBe(before.strict.ipv4);
  });
});
