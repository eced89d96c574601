import { describe, expect, test } from 'vitest';
import { type Endpoint, parseEndpoint } from '../../../src/model/address.ts';
import type { NodeName, ServiceName } from '../../../src/model/service.ts';
import { Gateways, type GatewayTransition } from '../../../src/zone/gateways.ts';

const name = (text: string) => text as NodeName;
const orders = 'orders' as ServiceName;
const billing = 'billing' as ServiceName;
const gateway = (node: string) => ({
  node: name(node),
  address: parseEndpoint('10.0.0.1:15008') as Endpoint,
});
const zones = [
  { zone: 'dc2', gateways: [gateway('g1'), gateway('g2'), gateway('g3')] },
  { zone: 'dc3', gateways: [gateway('g1')] },
];

function setup() {
  const clock = { now: 0 };
  const transitions: string[] = [];
  const gateways = new Gateways({
    backoff: { base: 100, max: 1000 },
    now: () => clock.now,
    random: () => 0,
    onTransition: ({ gateway: node, behind, to }: GatewayTransition) =>
      transitions.push(`${node}${behind === undefined ? '' : ` ${behind.zone}/${behind.service}`} ${to}`),
  });
  gateways.configure(zones);
  const order = (zone = 'dc2', service: ServiceName | undefined = orders, exclude: NodeName[] = []) =>
    gateways.candidates(zone, service, exclude).map(({ node }) => node);
  return { gateways, clock, transitions, order };
}

describe('the gateways of a zone', () => {
  test('are taken in turn', () => {
    const { order } = setup();
    expect([order(), order(), order(), order()].map((list) => list.join())).toEqual([
      'g1,g2,g3',
      'g2,g3,g1',
      'g3,g1,g2',
      'g1,g2,g3',
    ]);
  });

  test('are none for a zone that nobody configured', () => {
    const { gateways, order } = setup();
    expect(order('nowhere')).toEqual([]);
    expect(gateways.has('nowhere')).toBe(false);
    expect(gateways.has('dc2')).toBe(true);
  });

  test('leave out those that the session has passed', () => {
    expect(setup().order('dc2', orders, [name('g2'), name('g3')])).toEqual(['g1']);
  });

  test('survive the loss of one, which comes last until its pause is over', () => {
    const { gateways, clock, transitions, order } = setup();
    gateways.report(name('g1'), 'dc2', orders, 'gateway-failed');
    for (let i = 0; i < 3; i++) {
      expect(order().at(-1)).toBe('g1');
      expect(order('dc2', billing).at(-1)).toBe('g1');
    }
    expect(order('dc3')).toEqual(['g1']); // the only one is still better than none
    clock.now = 50; // base × 2^0, half of it random
    expect(new Set([order()[0], order()[0], order()[0]])).toEqual(new Set(['g1', 'g2', 'g3']));
    gateways.report(name('g1'), 'dc2', orders, 'reached');
    expect(transitions).toEqual(['g1 down', 'g1 up']);
  });

  test('pause longer with each failure in a row, not with each of one event', () => {
    const { gateways, clock, order } = setup();
    const fail = () => gateways.report(name('g1'), 'dc2', orders, 'gateway-failed');
    const last = () => [order(), order(), order()].every((list) => list.at(-1) === 'g1');
    for (let i = 0; i < 10; i++) fail();
    clock.now = 50;
    expect(last()).toBe(false);
    fail();
    clock.now = 149;
    expect(last()).toBe(true);
    clock.now = 150;
    expect(last()).toBe(false);
    for (let i = 0; i < 20; i++) {
      clock.now += 10_000;
      fail();
    }
    clock.now += 499; // half of the longest
    expect(last()).toBe(true);
    clock.now += 1;
    expect(last()).toBe(false);
  });

  test('are judged for each service behind them by itself', () => {
    const { gateways, transitions, order } = setup();
    gateways.report(name('g1'), 'dc2', orders, 'target-failed');
    expect(order('dc2', orders).at(-1)).toBe('g1');
    expect([order('dc2', billing)[0], order('dc2', billing)[0], order('dc2', billing)[0]]).toContain('g1');
    gateways.report(name('g2'), 'dc2', orders, 'gateway-failed');
    for (let i = 0; i < 3; i++) expect(order('dc2', orders)).toEqual(['g3', 'g1', 'g2']);
    gateways.report(name('g1'), 'dc2', orders, 'reached');
    expect(transitions).toEqual(['g1 dc2/orders down', 'g2 down', 'g1 dc2/orders up']);
  });

  test('are known again after a reload, unless they were removed', () => {
    const { gateways, transitions, order } = setup();
    gateways.report(name('g1'), 'dc2', orders, 'gateway-failed');
    gateways.configure(zones);
    expect(order().at(-1)).toBe('g1');
    gateways.configure([{ zone: 'dc2', gateways: [gateway('g2')] }]);
    expect(order()).toEqual(['g2']);
    gateways.report(name('g9'), 'dc2', orders, 'gateway-failed');
    expect(transitions).toEqual(['g1 down']);
    gateways.configure(zones);
    expect(order()[0]).toBe('g1');
  });
});
