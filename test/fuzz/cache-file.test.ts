import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { decodeFile, FileEncoder } from '../../src/cache/file-format.ts';
import { Catalogue } from '../../src/registry/catalogue.ts';
import { type CatalogueRecord, parseCatalogueRecord } from '../../src/registry/catalogue-record.ts';
import { parseCatalogueDocument } from '../../src/registry/document.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

const { nodes } = parseCatalogueDocument('nodes: [{name: n, zone: z, tunnel: "10.0.0.1:15008"}]');
const { services } = parseCatalogueDocument(
  'services: [{name: web, balance: round-robin, hosts: [w], addresses: ["[fd00::1]:1"], instances: [{id: i, zone: z, address: "10.0.0.1:80", labels: {a: b}}]}]',
);
const records = [
  { kind: 'node', source: 's', confirmedAt: 1, node: nodes[0]! },
  { kind: 'service', source: 's', confirmedAt: 1_700_000_000_000, service: services[0]! },
] as unknown as CatalogueRecord[];

function fileOf(list: readonly unknown[]): Buffer {
  const encoder = new FileEncoder();
  for (const record of list) encoder.add(record);
  return Buffer.concat(encoder.finish(1_700_000_000_000).parts);
}

/** As whoever can write the file would do it: lengths and checksum fit what is inside. */
function reseal(file: Buffer): Buffer {
  if (file.length < 64) return file;
  file.writeBigUInt64BE(BigInt(file.length - 64), 16);
  createHash('sha256').update(file.subarray(0, 32)).update(file.subarray(64)).digest().copy(file, 32);
  return file;
}

function believed(file: Buffer): CatalogueRecord[] | string {
  const decoded = decodeFile(file);
  if (typeof decoded === 'string') return decoded;
  const list: CatalogueRecord[] = [];
  for (const record of decoded.records) {
    const checked = parseCatalogueRecord(record);
    if (checked !== undefined) list.push(checked);
  }
  return list;
}

const good = fileOf(records);

describe('cache file', () => {
  test('a good file is believed; cut anywhere, or with any bit flipped, it is not', () => {
    expect(believed(good)).toEqual(records);
    for (let length = 0; length < good.length; length++)
      expect(typeof believed(good.subarray(0, length))).toBe('string');
    for (let bit = 0; bit < good.length * 8; bit++) {
      const file = Buffer.from(good);
      file[bit >> 3] = file[bit >> 3]! ^ (1 << (bit & 7));
      expect(typeof believed(file)).toBe('string');
    }
  });

  test('generated damage is never believed', () => {
    const random = new FuzzRandom(fuzzSeed('cache-file, damaged'));
    for (let run = 0; run < fuzzRuns; run++) {
      const file = random.mutated(good);
      if (!file.equals(good)) expect(typeof believed(file)).toBe('string');
    }
  });

  test('a file that somebody forged, checksum and all, gives valid records or none', () => {
    const random = new FuzzRandom(fuzzSeed('cache-file, forged'));
    const log = { info: () => undefined, warn: () => undefined };
    const source = {
      name: 's',
      status: { state: 'connecting', since: 0, confirmedAt: undefined, lastError: undefined, problems: [] },
      start: () => undefined,
      stop: () => Promise.resolve(),
    } as const;
    for (let run = 0; run < fuzzRuns; run++) {
      const body = random.mutated(good.subarray(64));
      const list = believed(reseal(Buffer.concat([good.subarray(0, 64), body])));
      if (typeof list === 'string') continue;
      for (const record of list) expect(parseCatalogueRecord(structuredClone(record))).toEqual(record);
      const catalogue = new Catalogue([source], log);
      catalogue.seed(list);
    }
  });

  test.each([
    ['an array of four thousand million', 'ddffffffff'],
    ['a string of four thousand million bytes', 'dbffffffff'],
    ['a set of msgpackr', 'd4730191'],
    ['an error of msgpackr', 'c7096593a45479706501'],
  ])('a forged record with %s is refused', (_what, hex) => {
    const value = Buffer.from(hex, 'hex');
    const length = Buffer.alloc(4);
    length.writeUInt32BE(value.length);
    const file = Buffer.concat([good.subarray(0, 64), length, value]);
    file.writeUInt32BE(1, 12);
    expect(believed(reseal(file))).toEqual([]);
  });
});
