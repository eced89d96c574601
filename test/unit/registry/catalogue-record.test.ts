import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseCatalogueRecord } from '../../../src/registry/catalogue-record.ts';

const record = {
  kind: 'service',
  source: 'file:/x',
  confirmedAt: 5,
  service: {
    name: 'web',
    protocol: 'http',
    mode: 'strict',
    interchangeable: true,
    balance: 'round-robin',
    hosts: ['www.shop'],
    addresses: [{ ip: '10.0.0.9', port: 80 }],
    instances: [
      {
        id: 'i',
        address: { ip: 'fd00::1', port: 80 },
        node: 'n',
        zone: 'z',
        labels: { a: 'b' },
        weight: 1,
        draining: true,
      },
      {
        id: 'j',
        address: { ip: '10.0.0.1', port: 80 },
        zone: 'z',
        labels: {},
        weight: 65535,
        draining: false,
      },
    ],
  },
};
const nodeRecord = {
  kind: 'node',
  source: 's',
  confirmedAt: 0,
  node: { name: 'n', zone: 'z', tunnel: { ip: '10.0.0.1', port: 1 } },
};

test('what a catalogue writes is read back the same', () => {
  expect(parseCatalogueRecord(structuredClone(record))).toEqual(record);
  expect(parseCatalogueRecord(structuredClone(nodeRecord))).toEqual(nodeRecord);
});

test('every single field that is replaced by something else is noticed', () => {
  const leaves: (readonly (string | number)[])[] = [];
  const walk = (value: unknown, path: readonly (string | number)[]) => {
    if (typeof value !== 'object' || value === null) leaves.push(path);
    else
      for (const [key, inner] of Object.entries(value))
        walk(inner, [...path, Array.isArray(value) ? Number(key) : key]);
  };
  for (const original of [record, nodeRecord]) {
    leaves.length = 0;
    walk(original, []);
    for (const path of leaves) {
      for (const wrong of [undefined, null, -1, 1.5, '', 'NOT VALID', [], {}, Number.NaN]) {
        if (path.at(-1) === 'node' && wrong == null) continue;
        if (path.at(-1) === 'source' && typeof wrong === 'string') continue;
        if (path.at(-1) === 'a' && typeof wrong === 'string') continue;
        const copy = structuredClone(original) as never;
        let at = copy as Record<string, unknown>;
        for (const step of path.slice(0, -1)) at = at[step] as Record<string, unknown>;
        at[path.at(-1)!] = wrong;
        expect(parseCatalogueRecord(copy), `${path.join('.')} = ${String(wrong)}`).toBeUndefined();
      }
    }
  }
});

test('anything else is refused and nothing is thrown', () => {
  fc.assert(
    fc.property(fc.anything(), (value) => {
      expect(parseCatalogueRecord(value)).toBeUndefined();
      expect(
        parseCatalogueRecord({ kind: 'service', source: 's', confirmedAt: 1, service: value }),
      ).toBeUndefined();
    }),
  );
});

test('two instances of one id are refused', () => {
  const copy = structuredClone(record);
  copy.service.instances[1]!.id = 'i';
  expect(parseCatalogueRecord(copy)).toBeUndefined();
});
