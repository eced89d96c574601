import { describe, expect, it } from 'vitest';
import { type ClientAddress, endpointKey, parseEndpoint } from '../../../src/model/address.ts';
import type {
  DeliverySource,
  Instance,
  InstanceId,
  NodeName,
  Service,
  ServiceName,
} from '../../../src/model/service.ts';
import { Delivery } from '../../../src/proxy/delivery.ts';
import { MemoryChannel } from './memory-channel.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');

function instance(address: string): Instance {
  return {
    id: 'one' as InstanceId,
    address: parseEndpoint(address)!,
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  };
}

function service(source: DeliverySource | undefined): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'tcp',
    mode: 'permissive',
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: [],
    ...(source === undefined ? {} : { source }),
  };
}

function setup() {
  const dialled: { how: string; channel: MemoryChannel }[] = [];
  const dial = (how: string) => {
    const channel = new MemoryChannel();
    dialled.push({ how, channel });
    return channel;
  };
  const delivery = new Delivery({
    direct: (to) => dial(`to ${endpointKey(to)}`),
    directFrom: (from, to) => dial(`from ${from} to ${endpointKey(to)}`),
    transparent: (from, to) => dial(`as ${endpointKey(from)} to ${endpointKey(to)}`),
    isOwnAddress: (ip) => ['10.0.0.1', 'fd00::1', '127.0.0.1', '::1'].includes(ip),
  });
  return { delivery, dialled };
}

const caller = (address: string | undefined) => ({
  address: address === undefined ? undefined : parseEndpoint(address)!,
  node: 'far' as NodeName,
  program: undefined,
});

describe('Delivery', () => {
  it.each([
    [undefined, '10.0.0.9:4000', '10.0.0.1:80', 'to 10.0.0.1:80'],
    ['node', '10.0.0.9:4000', '10.0.0.1:80', 'to 10.0.0.1:80'],
    ['transparent', '10.0.0.9:4000', '10.0.0.1:80', 'as 10.0.0.9:4000 to 10.0.0.1:80'],
    ['transparent', '[fd00::9]:4000', '[fd00::1]:80', 'as [fd00::9]:4000 to [fd00::1]:80'],
    // A caller on this host uses its port itself.
    ['transparent', '10.0.0.1:4000', '10.0.0.1:80', 'from 10.0.0.1 to 10.0.0.1:80'],
    // What the family of the instance cannot say, and what nobody knows.
    ['transparent', '10.0.0.9:4000', '[fd00::1]:80', 'to [fd00::1]:80'],
    ['transparent', undefined, '10.0.0.1:80', 'to 10.0.0.1:80'],
  ] as const)('source %s: a caller at %s comes to %s %s', (source, from, to, how) => {
    const { delivery, dialled } = setup();
    delivery.here(service(source), instance(to), caller(from));
    expect(dialled.map((one) => one.how)).toEqual([how]);
    expect(dialled[0]!.channel.written).toEqual([]);
  });

  it('writes the PROXY header before anything else, here and past an agent', () => {
    const { delivery, dialled } = setup();
    for (const way of ['here', 'there'] as const) {
      const channel = delivery[way](service('proxy-v2'), instance('10.0.0.1:80'), caller('10.0.0.9:4000'));
      channel.write(Buffer.from('GET'));
    }
    for (const { how, channel } of dialled) {
      expect(how).toBe('to 10.0.0.1:80');
      expect(channel.written.length).toBe(2);
      expect(channel.written[0]!.subarray(0, 12)).toEqual(SIGNATURE);
    }
  });

  it('past an agent the address of this host is the caller’s already', () => {
    const { delivery, dialled } = setup();
    delivery.there(service('transparent'), instance('10.0.0.7:80'), caller('10.0.0.1:4000'));
    expect(dialled.map(({ how }) => how)).toEqual(['to 10.0.0.7:80']);
  });

  it.each(['10.0.0.9:1', '[fd00::9]:1'])('believes that a peer’s caller is at %s', (claimed) => {
    const address = parseEndpoint(claimed) as ClientAddress;
    expect(setup().delivery.believed(address)).toBe(address);
  });

  it.each([
    '127.0.0.1:1',
    '127.9.9.9:1',
    '10.0.0.1:1',
    '0.0.0.0:1',
    '169.254.1.1:1',
    '224.0.0.1:1',
    '240.0.0.1:1',
    '255.255.255.255:1',
    '[::1]:1',
    '[::]:1',
    '[fe80::1]:1',
    '[ff02::1]:1',
    '[fd00::1]:1',
    '[::ffff:127.0.0.1]:1',
  ])('never lets a peer speak for this host: %s', (claimed) => {
    expect(setup().delivery.believed(parseEndpoint(claimed) as ClientAddress)).toBeUndefined();
  });
});
