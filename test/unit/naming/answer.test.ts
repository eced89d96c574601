import { describe, expect, it, test } from 'vitest';
import type { ServiceName } from '../../../src/model/service.ts';
import { applyDelta } from '../../../src/model/snapshot.ts';
import { answer, type Transport } from '../../../src/naming/answer.ts';
import { NameIndex } from '../../../src/naming/name-index.ts';
import { header, question, readAnswer } from './questions.ts';
import { nameSpace, service, snapshotOf, virtual } from './sample-names.ts';

const [A, SOA, PTR, MX, TXT, AAAA, SRV, ANY] = [1, 6, 12, 15, 16, 28, 33, 255] as const;
const names = nameSpace();

function ask(
  name: string,
  type: number,
  options: Parameters<typeof question>[2] = {},
  over: Transport = 'udp',
) {
  return readAnswer(answer(question(name, type, options), over, names)!);
}

const soa = { name: 'mesh', type: SOA, ttl: 5, data: 'mesh hostmaster.mesh 5' };

describe('a service', () => {
  it('has one address of each family', () => {
    expect(ask('orders.mesh', A)).toEqual({
      id: 0x1234,
      code: 0,
      authoritative: true,
      truncated: false,
      question: { name: 'orders.mesh', type: A },
      answers: [{ name: 'orders.mesh', type: A, ttl: 5, data: '240.1.2.3' }],
      authority: [],
      additional: [],
    });
    expect(ask('orders.mesh', AAAA).answers.map(({ data }) => data)).toEqual([
      'fd6d:6573:6800:0000:0000:0000:0000:0007',
    ]);
  });

  it('is reached at its ports, at the name itself, with its addresses beside', () => {
    const { answers, additional } = ask('orders.mesh', SRV);
    expect(answers.map(({ data }) => data)).toEqual(['80 orders.mesh', '8080 orders.mesh']);
    expect(additional.map(({ name, data }) => `${name} ${data}`)).toEqual([
      'orders.mesh 240.1.2.3',
      'orders.mesh fd6d:6573:6800:0000:0000:0000:0000:0007',
    ]);
  });

  it('is asked for by port or by protocol', () => {
    const byPort = ask('_8080._tcp.orders.mesh', SRV);
    expect(byPort.answers.map(({ data }) => data)).toEqual(['8080 orders.mesh']);
    expect(byPort.additional.map(({ name }) => name)).toEqual(['orders.mesh', 'orders.mesh']);
    expect(ask('_http._tcp.orders.mesh', SRV).answers).toHaveLength(2);
    expect(ask('_http._tcp.orders.mesh', A)).toMatchObject({ code: 0, answers: [], authority: [soa] });
    expect(ask('_81._tcp.orders.mesh', SRV)).toMatchObject({ code: 3, authority: [soa] });
    expect(ask('_80._udp.orders.mesh', SRV).code).toBe(3);
  });

  it('resolves without a live instance', () => {
    expect(ask('users.shop.mesh', A).answers.map(({ data }) => data)).toEqual(['241.0.0.9']);
    expect(ask('users.shop.mesh', SRV)).toMatchObject({ code: 0, answers: [], authority: [soa] });
  });

  it('is asked for everything at once', () => {
    expect(ask('orders.mesh', ANY).answers.map(({ type }) => type)).toEqual([A, AAAA, SRV, SRV]);
  });

  it('comes back in the case in which it was asked for', () => {
    const { question: asked, answers } = ask('oRdErS.MeSh', A);
    expect(asked?.name).toBe('oRdErS.MeSh');
    expect(answers.map(({ name }) => name)).toEqual(['oRdErS.MeSh']);
  });

  it('has its name at its addresses', () => {
    expect(ask('3.2.1.240.in-addr.arpa', PTR).answers.map(({ data }) => data)).toEqual(['orders.mesh']);
    const nibbles = `${'7'}${'.0'.repeat(19)}.0.0.8.6.3.7.5.6.d.6.d.f`;
    expect(ask(`${nibbles}.ip6.arpa`, PTR).answers.map(({ data }) => data)).toEqual(['orders.mesh']);
    expect(ask('3.2.1.240.in-addr.arpa', A)).toMatchObject({ code: 0, answers: [], authority: [] });
  });
});

it('has no name at its address where the name would be too long', () => {
  const name = Array.from({ length: 4 }, () => 'a'.repeat(62)).join('.');
  const snapshot = snapshotOf([service(name, [], virtual('240.0.0.2'))]);
  const space = { ...names, snapshot, index: new NameIndex() };
  const pointer = (domain: string) =>
    readAnswer(answer(question('2.0.0.240.in-addr.arpa', PTR), 'udp', { ...space, domain })!);
  expect(pointer('m').answers).toHaveLength(1);
  expect(pointer('mesh').code).toBe(5);
});

describe('nothing', () => {
  test.each([
    ['of this type', 'orders.mesh', MX, 0],
    ['of this family', 'many.mesh', AAAA, 0],
    ['at the domain itself', 'mesh', A, 0],
    ['at a name between the domain and a service', 'shop.mesh', A, 0],
    ['between a service and its ports', '_tcp.orders.mesh', SRV, 0],
    ['of this name', 'nobody.mesh', A, 3],
    ['below a service', 'www.orders.mesh', A, 3],
    ['of a name with a dot inside a label', 'a.mesh', A, 3],
  ])('%s', (_what, name, type, code) => {
    expect(ask(name, type)).toMatchObject({ code, authoritative: true, answers: [], authority: [soa] });
  });

  it('is meant by a dot inside a label', () => {
    const dotted = question('users_shop.mesh', A);
    dotted[12 + 1 + 5] = 0x2e;
    expect(readAnswer(answer(dotted, 'udp', names)!).code).toBe(3);
  });

  it('stays nothing once a service went, and its parents with it', () => {
    const index = names.index;
    const before = nameSpace();
    expect(index.hasBelow(before.snapshot, 'shop')).toBe(true);
    const gone = applyDelta(before.snapshot, {
      base: before.snapshot.version,
      services: [service('orders', [], virtual('243.0.0.1'))],
      removedServices: ['users.shop' as ServiceName],
      nodes: [],
      removedNodes: [],
    });
    expect(index.hasBelow(gone, 'shop')).toBe(false);
    const space = { ...names, snapshot: gone };
    const pointer = (name: string) => readAnswer(answer(question(name, PTR), 'udp', space)!);
    expect(pointer('1.0.0.243.in-addr.arpa').answers).toHaveLength(1);
    expect(pointer('3.2.1.240.in-addr.arpa').code).toBe(5);
  });
});

it('tells how long nothing holds', () => {
  expect(ask('mesh', SOA).answers).toEqual([soa]);
  const long = { ...names, ttlMs: 400 };
  expect(readAnswer(answer(question('x.mesh', A), 'udp', long)!).authority[0]?.ttl).toBe(1);
  const forever = { ...names, ttlMs: Number.MAX_SAFE_INTEGER };
  expect(readAnswer(answer(question('orders.mesh', A), 'udp', forever)!).answers[0]?.ttl).toBe(86_400);
});

test.each([
  ['example.test', A],
  ['meshx', A],
  ['orders.mesh.example', A],
  ['', A],
  ['1.2.0.192.in-addr.arpa', PTR],
  ['x.in-addr.arpa', PTR],
])('%s is not ours', (name, type) => {
  expect(ask(name, type)).toMatchObject({ code: 5, authoritative: false, answers: [], authority: [] });
});

it('takes a domain of several labels', () => {
  const space = nameSpace('svc.corp.example');
  const got = readAnswer(answer(question('orders.svc.corp.example', SRV), 'udp', space)!);
  expect(got.answers.map(({ data }) => data)).toEqual([
    '80 orders.svc.corp.example',
    '8080 orders.svc.corp.example',
  ]);
  expect(readAnswer(answer(question('orders.mesh', A), 'udp', space)!).code).toBe(5);
});

describe('size', () => {
  it('is what the asker takes: too much is truncated over UDP and whole over TCP', () => {
    const plain = answer(question('many.mesh', SRV), 'udp', names)!;
    expect(plain.length).toBeLessThanOrEqual(512);
    expect(readAnswer(plain)).toMatchObject({ truncated: true, answers: [], additional: [] });
    const edns = answer(question('many.mesh', SRV, { edns: 65_000 }), 'udp', names)!;
    expect(edns.length).toBeLessThanOrEqual(1232);
    expect(readAnswer(edns).truncated).toBe(true);
    const whole = ask('many.mesh', SRV, {}, 'tcp');
    expect(whole.truncated).toBe(false);
    expect(whole.answers).toHaveLength(64);
  });

  it('leaves out what is only beside the answer', () => {
    // 30 bytes and 15 records of 32 fill 512 bytes but for two: the address does not fit any more.
    const ports = Array.from({ length: 15 }, (_, i) => 2000 + i);
    const snapshot = snapshotOf([service('abcdefg', [], { ...virtual('240.0.0.2'), ports })]);
    const got = readAnswer(answer(question('abcdefg.mesh', SRV), 'udp', { ...names, snapshot })!);
    expect(got).toMatchObject({ truncated: false, additional: [] });
    expect(got.answers).toHaveLength(15);
  });

  it('takes 512 bytes for the least, whatever EDNS says', () => {
    expect(ask('orders.mesh', SRV, { edns: 0 }).answers).toHaveLength(2);
  });
});

describe('a message that cannot be answered', () => {
  const bare = (message: Buffer) => readAnswer(answer(message, 'udp', names)!);

  it('is ignored when it is no query, so that two servers never answer each other', () => {
    expect(answer(header(1, 0x8180, [1, 0, 0, 0]), 'udp', names)).toBeUndefined();
    expect(answer(Buffer.alloc(11), 'udp', names)).toBeUndefined();
  });

  test.each([
    ['no question', header(7, 0, [0, 0, 0, 0]), 1],
    ['two questions', Buffer.concat([header(7, 0, [2, 0, 0, 0]), question('a.mesh', A).subarray(12)]), 1],
    ['a name that never ends', Buffer.concat([header(7, 0, [1, 0, 0, 0]), Buffer.alloc(300, 1)]), 1],
    [
      'a pointer for a name',
      Buffer.concat([header(7, 0, [1, 0, 0, 0]), Buffer.from('c00c00010001', 'hex')]),
      1,
    ],
    ['a name cut off', question('orders.mesh', A).subarray(0, 18), 1],
    ['a type cut off', question('orders.mesh', A).subarray(0, -1), 1],
    [
      'more records than there are',
      Buffer.concat([header(7, 0, [1, 9, 9, 9]), question('a.mesh', A).subarray(12)]),
      1,
    ],
    ['another opcode (UPDATE)', header(7, 0x2800, [1, 0, 0, 0]), 4],
  ])('says so: %s', (_what, message, code) => {
    expect(bare(message)).toMatchObject({ code, question: undefined, answers: [] });
  });

  it('says so: another class, another version of EDNS, two OPT records', () => {
    expect(ask('orders.mesh', TXT, { class: 3 })).toMatchObject({ code: 5, answers: [] });
    const version = answer(question('orders.mesh', A, { edns: 1232, version: 1 }), 'udp', names)!;
    const read = readAnswer(version);
    expect(read.code).toBe(0);
    expect(read.additional[0]).toMatchObject({ type: 41, ttl: 0x01000000 });
    const twice = question('orders.mesh', A, { edns: 1232 });
    const opt = twice.subarray(-11);
    twice[11] = 2;
    expect(bare(Buffer.concat([twice, opt])).code).toBe(1);
  });
});
