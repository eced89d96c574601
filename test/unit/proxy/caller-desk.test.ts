import { beforeEach, describe, expect, test } from 'vitest';
import { type Identity, identityOf, Naming, unknownIdentity } from '../../../src/caller/identity.ts';
import type { ClientAddress, Endpoint, Ip } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { CallerDesk } from '../../../src/proxy/caller-desk.ts';
import { type ConnectionEntry, Connections } from '../../../src/proxy/connections.ts';

const MOST = 3;
const orders = identityOf({ unit: 'orders.service', user: 'shop' });
const shop = identityOf({ user: 'shop' });
const loopback: Endpoint = { ip: '127.0.0.1' as Ip, port: 15_001 };
const bridge: Endpoint = { ip: '172.17.0.1' as Ip, port: 15_001 };
const destination: Endpoint = { ip: '10.0.0.2' as Ip, port: 80 };
const client = (ip = '10.0.0.1') => ({ ip: ip as Ip, port: 40_000 }) as ClientAddress;

let records: ConnectionRecord[];
let refused: string[];
let connections: Connections;
let local: Identity | Naming;
let desk: CallerDesk;

beforeEach(() => {
  records = [];
  refused = [];
  local = orders;
  connections = new Connections('t', { started: () => {}, ended: (record) => records.push(record) });
  desk = new CallerDesk({
    identifier: () => ({ local: () => local, bridged: () => identityOf({ container: 'aaa' }) }),
    most: () => MOST,
    onRefused: (caller) => refused.push(caller),
  });
});

const begin = (): ConnectionEntry =>
  connections.begin({
    direction: 'outbound',
    callerNode: undefined,
    callerService: undefined,
    callerAddress: '',
    destination: '',
  });
const admit = (
  from = client(),
  listener = loopback,
): { entry: ConnectionEntry; refusal: string | undefined } => {
  const entry = begin();
  return { entry, refusal: desk.admit(entry, from, destination, listener) };
};

test('what the kernel says is written down', () => {
  admit().entry.finish('done');
  expect(records[0]).toMatchObject({
    caller: { unit: 'orders.service', user: 'shop' },
    callerProgram: 'unit:orders.service',
  });
});

test('on a bridge the container is asked for', () => {
  expect(admit(client('172.17.0.2'), bridge).entry.callerProgram).toBe('container:aaa');
});

test('nobody is asked where callers are not to be identified', () => {
  const off = new CallerDesk({ identifier: () => undefined, most: () => 0, onRefused: () => {} });
  const entry = begin();
  expect(off.admit(entry, client(), destination, loopback)).toBeUndefined();
  expect([entry.caller, entry.callerProgram]).toEqual([undefined, undefined]);
});

describe('a share', () => {
  test('is not passed by one caller, and others go on', () => {
    const held = Array.from({ length: MOST }, () => admit());
    expect(held.map(({ refusal }) => refusal)).toEqual([undefined, undefined, undefined]);
    const over = admit();
    expect(over.refusal).toBe('limits.callerPercent: this caller has 3 connections already');
    expect(refused).toEqual(['unit:orders.service']);
    over.entry.finish('overload');
    local = shop;
    expect(admit().refusal).toBeUndefined();
    local = orders;
    expect(admit().refusal).toBeDefined();
    held[0]!.entry.finish('done');
    held[0]!.entry.finish('done');
    expect(admit().refusal).toBeUndefined();
    expect(admit().refusal).toBeDefined();
  });

  test('of those whom nobody knows goes by address', () => {
    local = unknownIdentity;
    for (let i = 0; i < MOST; i++) expect(admit(client('10.0.0.1')).refusal).toBeUndefined();
    expect(admit(client('10.0.0.1')).refusal).toMatch(/this caller has 3/);
    expect(admit(client('10.0.0.9')).refusal).toBeUndefined();
  });

  test('moves to the name when that is known', () => {
    const naming = new Naming(shop, 'cgroup:7');
    local = naming;
    const held = Array.from({ length: MOST }, () => admit());
    expect(admit().refusal).toMatch(/this caller has 3/);
    naming.settle(orders);
    local = shop;
    expect(admit().refusal).toBeUndefined();
    local = orders;
    expect(admit().refusal).toMatch(/this caller has 3/);
    held.pop()!.entry.finish('done');
    expect(admit().refusal).toBeUndefined();
  });

  test('that turns out to be full with the name ends the connection', () => {
    for (let i = 0; i < MOST; i++) admit();
    const naming = new Naming(shop, 'cgroup:7');
    local = naming;
    const { entry, refusal } = admit();
    expect(refusal).toBeUndefined();
    entry.abort = (end) => entry.finish(end.reason, end.detail);
    naming.settle(orders);
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({
      reason: 'overload',
      detail: 'limits.callerPercent: this caller has 3 connections already',
      callerProgram: 'unit:orders.service',
    });
    local = shop;
    for (let i = 0; i < MOST; i++) expect(admit().refusal).toBeUndefined();
  });
});

describe('a name that is being looked for', () => {
  let naming: Naming;
  beforeEach(() => {
    naming = new Naming(shop, 'cgroup:7');
    local = naming;
  });

  test('is written down when it comes while the connection lives', () => {
    const { entry } = admit();
    expect(entry.callerProgram).toBe('user:shop');
    naming.settle(orders);
    expect(entry.callerProgram).toBe('unit:orders.service');
    entry.finish('done');
    expect(records.map(({ callerProgram }) => callerProgram)).toEqual(['unit:orders.service']);
  });

  test('is waited for by the record of a connection that ends before, and by nothing else', () => {
    const { entry } = admit();
    entry.finish('done');
    expect([records, connections.size]).toEqual([[], 0]);
    naming.settle(orders);
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({ caller: orders.caller, callerProgram: orders.text, reason: 'done' });
    // The share was left at the end: the name that came after it holds nothing.
    local = orders;
    for (let i = 0; i < MOST; i++) expect(admit().refusal).toBeUndefined();
  });

  test('leaves no more waiting than a bound', () => {
    let told = 0;
    for (let i = 0; i < 10_000; i++) expect(naming.wait(() => told++)).toBe(i < 8_192);
    expect(admit().refusal).toMatch(/before the name of their caller was known/);
    naming.settle(orders);
    naming.settle(shop);
    expect(told).toBe(8_192);
  });

  test('counts for nobody else meanwhile; who is refused meanwhile is named in the end', () => {
    for (let i = 0; i < MOST; i++) expect(admit().refusal).toBeUndefined();
    const over = admit();
    expect(over.refusal).toMatch(/this caller has 3/);
    over.entry.finish('overload', over.refusal);
    local = shop;
    expect(admit().refusal).toBeUndefined();
    expect([records, refused]).toEqual([[], []]);
    naming.settle(orders);
    expect(refused).toEqual(['unit:orders.service']);
    expect(records.map(({ callerProgram }) => callerProgram)).toEqual(['unit:orders.service']);
    local = orders;
    expect(admit().refusal).toMatch(/this caller has 3/);
  });
});
