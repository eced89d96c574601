import { describe, expect, test } from 'vitest';
import { MeshError } from '../../src/model/errors.ts';
import { parseServiceName } from '../../src/model/service.ts';
import {
  MAX_MEMBER_BYTES,
  MemberError,
  parseMember,
  type ServersetMember,
} from '../../src/registry/serverset-member.ts';
import { ServersetTree } from '../../src/registry/serverset-tree.ts';
import { type ServerMessage, ZookeeperCodec } from '../../src/registry/zookeeper-protocol.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

const written = Buffer.from(
  JSON.stringify({
    serviceEndpoint: { host: '10.0.0.1', port: 8080 },
    additionalEndpoints: { http: { host: 'h1.example', port: 8081 }, __proto__x: { host: 'h', port: 1 } },
    status: 'ALIVE',
    shard: 7,
    metadata: { node: 'host-1', zone: 'dc1', version: '2' },
  }),
);
const wanted = new Set(['', 'http', 'constructor']);

const framed = (hex: string) => (hex.length / 2).toString(16).padStart(8, '0') + hex;
const zxid = '000000000000002a';
/** What a server answers, as ZooKeeper 3.8 writes it: a session, the children of a path, data of a member, no such path; and a watch. */
const answers = Buffer.from(
  framed(`00000000000027100000000000000007${framed('00'.repeat(16))}00`) +
    framed(`00000001${zxid}0000000000000001${framed(Buffer.from('member_0000000001').toString('hex'))}`) +
    framed(`00000002${zxid}00000000${framed(Buffer.from('{}').toString('hex'))}${'00'.repeat(68)}`) +
    framed(`00000003${zxid}ffffff9b`) +
    framed(
      `ffffffffffffffffffffffff000000000000000400000003${framed(Buffer.from('/discovery').toString('hex'))}`,
    ),
  'hex',
);

function believe(member: ServersetMember): void {
  for (const { host, port } of member.endpoints.values()) {
    expect(host).toMatch(/^[0-9A-Za-z._:-]{1,253}$/);
    expect(port).toBeGreaterThan(0);
    expect(port).toBeLessThan(65536);
  }
  expect(Object.keys(member.labels).length).toBeLessThanOrEqual(64);
  for (const text of member.problems) expect(text.length).toBeLessThan(500);
}

function read(pieces: readonly Uint8Array[]): ServerMessage[] {
  const codec = new ZookeeperCodec(0n);
  codec.ask('getChildren', '/discovery');
  codec.ask('getData', '/discovery/a');
  codec.ask('exists', '/discovery');
  return pieces.flatMap((piece) => [...codec.push(piece)]);
}

describe('serversets', () => {
  test('generated members end in a member or a MemberError', () => {
    const random = new FuzzRandom(fuzzSeed('serverset'));
    let good = 0;
    for (let run = 0; run < fuzzRuns; run++) {
      const bytes = random.below(5) === 0 ? random.bytes(random.below(100)) : random.mutated(written);
      try {
        believe(parseMember(bytes, wanted));
        good++;
      } catch (error) {
        if (!(error instanceof MemberError && error.message.length < 500)) {
          throw new Error(bytes.toString('hex'), { cause: error });
        }
      }
    }
    expect(good).toBeGreaterThan(fuzzRuns / 100);
  });

  test.each([
    ['too much', ' '.repeat(MAX_MEMBER_BYTES + 1)],
    ['nesting', '['.repeat(MAX_MEMBER_BYTES)],
    ['nothing', ''],
    ['a list', '[]'],
    ['the older binary form', '\x0c\x00\x01\x0b\x00\x01'],
    ['a status of the language', '{"status":"constructor"}'],
    ['no endpoint', '{"status":"ALIVE"}'],
    ['a port out of range', '{"status":"ALIVE","serviceEndpoint":{"host":"h","port":65536}}'],
    ['a host with a line feed', '{"status":"ALIVE","serviceEndpoint":{"host":"h\\n","port":1}}'],
    ['a host without end', `{"status":"ALIVE","serviceEndpoint":{"host":"${'h'.repeat(254)}","port":1}}`],
  ])('%s is no member', (_what, text) => {
    expect(() => parseMember(Buffer.from(text), wanted)).toThrow(MemberError);
  });

  test('answers split at every byte say the same, and damaged ones end in a MeshError', () => {
    const whole = read([answers]);
    expect(whole.map(({ kind }) => kind)).toEqual(['session', 'answer', 'answer', 'answer', 'event']);
    for (let at = 0; at <= answers.length; at++) {
      expect(read([answers.subarray(0, at), answers.subarray(at)])).toEqual(whole);
    }
    const random = new FuzzRandom(fuzzSeed('zookeeper'));
    for (let run = 0; run < fuzzRuns; run++) {
      const bytes = random.mutated(answers);
      try {
        read(random.pieces(bytes));
      } catch (error) {
        const known = error instanceof MeshError && (error.code === 'protocol' || error.code === 'registry');
        if (!known) throw new Error(bytes.toString('hex'), { cause: error });
      }
    }
  });

  test('whatever is said in whatever order, changes and a full list come to the same services', () => {
    const random = new FuzzRandom(fuzzSeed('serverset-tree'));
    const paths = ['/d', '/d/a', '/d/b', '/d/a/web', '/d/b/web', '/d/b/Bad', '/d/a/web/x', '/other'];
    const names = [
      'a',
      'b',
      'web',
      'x',
      'Bad',
      'member_1',
      'member_2',
      'member_0000000003',
      '__proto__',
      '',
      '..',
    ];
    for (let run = 0; run < fuzzRuns / 20; run++) {
      const tree = new ServersetTree({
        roots: { kind: 'tree', path: '/d', names: run % 2 === 0 ? 'last' : 'path' },
        zone: 'here',
        balance: 'round-robin',
        ipOf: () => '10.0.0.1' as never,
      });
      const told = new Map<string, unknown>();
      for (let step = 0; step < 40; step++) {
        const path = paths[random.below(paths.length)]!;
        const member = `${path}/${names[5 + random.below(3)]!}`;
        const kind = random.below(6);
        if (kind <= 1)
          tree.children(
            path,
            names.filter(() => random.below(2) === 0),
          );
        else if (kind <= 3) tree.member(member, random.below(3) === 0 ? random.mutated(written) : written);
        else if (kind === 4) tree.absent(random.below(2) === 0 ? path : member);
        else tree.refused(random.below(2) === 0 ? path : member, 'not allowed to read it');
        const update = tree.changes();
        if (update?.kind !== 'change') continue;
        for (const name of update.removedServices) told.delete(name);
        for (const service of update.services) {
          expect(parseServiceName(service.name)).toBe(service.name);
          told.set(service.name, service);
        }
      }
      const full = tree.full(true);
      expect(new Map(full.services.map((service) => [service.name as string, service]))).toEqual(told);
      tree.absent('/d');
      expect(tree.full(true).services).toEqual([]);
    }
  });
});
