import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseIp } from '../../src/model/address.ts';
import { MeshError } from '../../src/model/errors.ts';
import { parseService } from '../../src/registry/catalogue-record.ts';
import { serviceDefaults } from '../../src/registry/defaults.ts';
import { DnsQuestions } from '../../src/registry/dns-questions.ts';
import { instancesOf, type SrvRecord, usedRecords } from '../../src/registry/dns-srv.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

/** Questions of one look; a damaged answer costs the resolver a timeout, so they wait together. */
const BATCH = 32;
const SRV = 33;
const AAAA = 28;

const u16 = (...values: number[]) => Buffer.from(values.flatMap((value) => [value >> 8, value & 0xff]));
const dns = (name: string) =>
  Buffer.concat([
    ...name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
    Buffer.alloc(1),
  ]);

/** The right answer to a question with one name: two SRV records, or two addresses. */
function answerTo(question: Buffer): Buffer {
  let end = 12;
  while (question[end] !== 0) end += question[end]! + 1;
  const type = question.readUInt16BE(end + 1);
  const data =
    type === SRV
      ? [Buffer.concat([u16(1, 30, 80), dns('a.test')]), Buffer.concat([u16(1, 10, 81), dns('b.test')])]
      : type === AAAA
        ? [Buffer.alloc(16, 0xfd), Buffer.alloc(16, 0xfc)]
        : [Buffer.from([127, 0, 1, 1]), Buffer.from([127, 0, 1, 2])];
  const records = data.map((bytes) => Buffer.concat([u16(0xc00c, type, 1, 0, 5, bytes.length), bytes]));
  const header = Buffer.concat([question.subarray(0, 2), u16(0x8580, 1, records.length, 0, 0)]);
  return Buffer.concat([header, question.subarray(12, end + 5), ...records]);
}

describe('answers of name servers', () => {
  let server: Socket;
  let bend: (answer: Buffer) => Buffer;
  const ask = () => new DnsQuestions([{ ip: parseIp('127.0.0.1')!, port: server.address().port }], 60);
  const names = Array.from({ length: BATCH }, (_, i) => `n${i}.test`);

  beforeAll(async () => {
    server = createSocket('udp4');
    server.bind(0, '127.0.0.1');
    await once(server, 'listening');
    server.on('message', (question, from) => server.send(bend(answerTo(question)), from.port, from.address));
  });
  afterAll(() => new Promise<void>((resolve) => server.close(resolve)));

  test('as they should be, are read', async () => {
    bend = (answer) => answer;
    const questions = ask();
    expect(await questions.srv('x.test')).toHaveLength(2);
    const { addresses, ttl } = await questions.addresses('x.test');
    expect(addresses).toHaveLength(4);
    expect(ttl).toBe(5);
  });

  test('damaged, end in a valid service or in a MeshError', async () => {
    const random = new FuzzRandom(fuzzSeed('dns-answers'));
    bend = (answer) => {
      if (random.below(8) === 0) return answer;
      const bytes = random.mutated(answer.subarray(2));
      return Buffer.concat([answer.subarray(0, 2), bytes]);
    };
    let read = 0;
    for (let run = 0; run < fuzzRuns; run += BATCH * 20) {
      const questions = ask();
      const answers = await questions.each(names, (name) => questions.srv(name));
      const addresses = await questions.each(names, (name) => questions.addresses(name));
      questions.cancel();
      const found = [...addresses.values()].flatMap((one) =>
        one instanceof MeshError ? [] : [one.addresses],
      );
      for (const answer of answers.values()) {
        if (answer instanceof MeshError) {
          expect(answer.code).toBe('registry');
          continue;
        }
        believe(answer, (i) => found[i % found.length] ?? []);
        read++;
      }
    }
    expect(read).toBeGreaterThan(0);
  });

  test('of any size and content make a valid service', () => {
    const random = new FuzzRandom(fuzzSeed('dns-records'));
    const odd = ['', '.', 'a.test', '__proto__', '\u0000\uffff', 'x'.repeat(70_000), '127.0.0.1'];
    const one = (): SrvRecord => ({
      name: odd[random.below(odd.length)]!,
      port: random.below(70_000),
      priority: random.below(3),
      weight: random.below(3) === 0 ? 0 : random.below(65_536),
    });
    for (let run = 0; run < fuzzRuns / 50; run++) {
      const records = Array.from({ length: random.below(run === 0 ? 3000 : 30) }, one);
      believe(records, () =>
        ['127.0.0.1', 'nonsense', '::1', '10.1', 'x'.repeat(1000)].slice(random.below(5)),
      );
    }
  });
});

/** What a source makes of records; whatever they are, the service is one that the catalogue takes. */
function believe(answer: readonly SrvRecord[], addresses: (i: number) => readonly string[]): void {
  const problems: string[] = [];
  const used = usedRecords(answer, problems);
  const known = new Map(used.map(({ name }, i) => [name, addresses(i)] as const));
  const instances = instancesOf(used, known, 'here', problems);
  const fixed = { ...serviceDefaults, balance: 'round-robin', hosts: [], addresses: [] };
  expect(parseService({ name: 'web', ...fixed, instances })).toBeDefined();
  for (const problem of problems) expect(problem.length).toBeLessThan(1000);
}
