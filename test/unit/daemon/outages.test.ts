import { expect, it } from 'vitest';
import { HostOutages } from '../../../src/daemon/supervisor/outages.ts';
import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, type Claim, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';

function instance(id: string, address: string, draining = false): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint(address)!,
    zone: 'z',
    labels: {},
    weight: 100,
    draining,
  };
}

function service(name: string, instances: readonly Instance[], change: Partial<Service> = {}): Service {
  return {
    name: name as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances,
    ...change,
  };
}

function snapshotOf(...services: Service[]): Snapshot {
  return applyDelta(emptySnapshot, {
    base: 0,
    services,
    removedServices: [],
    nodes: [],
    removedNodes: [],
  });
}

function setup(...services: Service[]) {
  const told: string[][] = [];
  const outages = new HostOutages((addresses) => told.push([...addresses].sort()));
  outages.use(snapshotOf(...services));
  return { outages, told };
}

const whole = (name: string): Claim => ({ service: name as ServiceName });
const one = (name: string, id: string): Claim => ({ ...whole(name), instance: id as InstanceId });

it('refuses every address of a service that is dead: declared, virtual, of its instances', () => {
  const web = service(
    'web',
    [instance('1', '10.0.0.1:80'), instance('2', '[fd00::2]:80'), instance('leaving', '10.0.0.3:80', true)],
    { addresses: [parseEndpoint('10.9.9.9:443')!], virtual: ['240.0.0.1' as Ip, 'fd6d::1' as Ip] },
  );
  const { outages, told } = setup(web);
  outages.heard(1, [whole('web')]);
  // The draining instance was not asked: its own address is left as it is.
  expect(told).toEqual([['10.0.0.1:80', '10.9.9.9:443', '240.0.0.1:80', '[fd00::2]:80', '[fd6d::1]:80']]);
  outages.heard(1, []);
  expect(told.at(-1)).toEqual([]);
});

it('refuses the own address of one instance, and nothing else', () => {
  const web = service('web', [instance('1', '10.0.0.1:80'), instance('2', '10.0.0.2:80')]);
  const { outages, told } = setup(web);
  outages.heard(1, [one('web', '1')]);
  expect(told).toEqual([['10.0.0.1:80']]);
});

it('believes one worker, until that one takes it back or is gone', () => {
  const { outages, told } = setup(service('web', [instance('1', '10.0.0.1:80')]));
  outages.heard(1, [whole('web')]);
  outages.heard(2, [whole('web')]);
  outages.heard(1, []);
  expect(told).toEqual([['10.0.0.1:80']]);
  expect(outages.down).toEqual([whole('web')]);
  outages.gone(2);
  outages.gone(3);
  expect(told).toEqual([['10.0.0.1:80'], []]);
});

it('leaves an address alone that a living service claims, too', () => {
  const shared = [parseEndpoint('10.9.9.9:443')!];
  const dead = service('dead', [instance('1', '10.0.0.1:80')], { addresses: shared });
  const alive = service('alive', [instance('1', '10.0.0.2:80')], { addresses: shared });
  const empty = service('empty', [], { addresses: shared });
  const { outages, told } = setup(dead, alive, empty);
  outages.heard(1, [whole('dead')]);
  expect(told).toEqual([['10.0.0.1:80']]);
  outages.use(snapshotOf(dead, empty));
  expect(told.at(-1)).toEqual(['10.0.0.1:80', '10.9.9.9:443']);
});

it('takes one process under two names for one', () => {
  const { outages, told } = setup(
    service('a', [instance('1', '10.0.0.1:80')]),
    service('b', [instance('1', '10.0.0.1:80')]),
  );
  outages.heard(1, [one('a', '1')]);
  expect(told).toEqual([['10.0.0.1:80']]);
});

it('follows the catalogue, and takes nothing for known that is not in it', () => {
  const { outages, told } = setup(service('web', [instance('1', '10.0.0.1:80')]));
  outages.heard(1, [whole('web'), whole('nobody'), one('web', 'nobody')]);
  outages.use(snapshotOf(service('web', [instance('1', '10.0.0.1:80'), instance('2', '10.0.0.2:80')])));
  outages.use(snapshotOf());
  expect(told).toEqual([['10.0.0.1:80'], ['10.0.0.1:80', '10.0.0.2:80'], []]);
});
