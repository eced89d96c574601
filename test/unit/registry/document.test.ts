import { expect, test } from 'vitest';
import { DocumentError, parseCatalogueDocument } from '../../../src/registry/document.ts';

const mistakes = (text: string): readonly string[] => {
  try {
    parseCatalogueDocument(text);
  } catch (error) {
    if (error instanceof DocumentError) return error.mistakes;
    throw error;
  }
  return [];
};

test('everything that can be said', () => {
  const text = `
services:
  - name: web
    protocol: http
    mode: strict
    interchangeable: true
    balance: least-connections
    hosts: [www.shop, shop]
    addresses: ["10.9.0.1:80", "[fd00::9]:80"]
    instances:
      - id: web-1
        address: 10.0.0.1:8080
        node: host-1
        zone: dc1
        labels: { version: "2", __proto__: x }
        weight: 50
        draining: true
nodes:
  - { name: host-1, zone: dc1, tunnel: "[FD00:0::1]:15008" }
`;
  const { services, nodes } = parseCatalogueDocument(text);
  expect(services[0]).toMatchObject({
    name: 'web',
    mode: 'strict',
    balance: 'least-connections',
    hosts: ['www.shop', 'shop'],
  });
  expect(services[0]!.addresses).toEqual([
    { ip: '10.9.0.1', port: 80 },
    { ip: 'fd00::9', port: 80 },
  ]);
  expect(services[0]!.instances[0]).toMatchObject({ id: 'web-1', weight: 50, draining: true, zone: 'dc1' });
  expect(nodes).toEqual([{ name: 'host-1', zone: 'dc1', tunnel: { ip: 'fd00::1', port: 15008 } }]);
});

test.each(['services: []', 'services:\nnodes:\n', '# nothing here\n', '{}', '---\n'])(
  '%j says that there is nothing',
  (text) => {
    expect(parseCatalogueDocument(text)).toEqual({ services: [], nodes: [] });
  },
);

test.each<[string, string]>([
  ['', '1:1: found an empty file; expected services:'],
  ['[]', '1:1: document: found []; expected object'],
  ['services: 3', '1:11: services: found 3; expected array'],
  ['service: []', '1:1: service: found an unknown key; expected one of: services, nodes'],
  [
    'services:\n  - name: web\n    protcol: http',
    '3:5: services[0].protcol: found an unknown key; expected one of: name, protocol, mode, interchangeable, balance, hosts, addresses, ports, source, instances',
  ],
  ['services:\n  - nam: web', '2:5: services[0].name: found nothing; expected string'],
  [
    'services:\n  - name: Web',
    '2:11: services[0].name: found "Web"; expected a service name: lower-case letters, digits, - and .',
  ],
  [
    'services: [{name: a, protocol: foo}]',
    '1:32: services[0].protocol: found "foo"; expected one of "tcp"|"auto"|"http"|"http2"|"grpc"|"tls"|"redis"',
  ],
  [
    'services: [{name: a, instances: [{address: 10.0.0.1}]}]',
    '1:44: services[0].instances[0].address: found "10.0.0.1"; expected ADDRESS:PORT, for example 10.0.0.1:8080 or [fd00::1]:8080',
  ],
  [
    'services: [{name: a, instances: [{address: "10.0.0.1:1", weight: 0}]}]',
    '1:66: services[0].instances[0].weight: found 0; expected number to be >=1',
  ],
  [
    'services: [{name: a, instances: [{address: "10.0.0.1:1", labels: {v: 2}}]}]',
    '1:70: services[0].instances[0].labels.v: found 2; expected string',
  ],
  [
    'services: [{name: a, instances: [{address: "1.1.1.1:1"}, {address: "1.1.1.1:1"}]}]',
    '1:68: services[0].instances[1].address: found the same instance a second time; expected another id',
  ],
  ['services: [{name: a}, {name: a}]', '1:30: services[1].name: found a a second time'],
  ['nodes: [{name: a, zone: z}]', '1:9: nodes[0].tunnel: found nothing; expected string'],
  ['services: [', '1:12: Flow sequence in block collection must be sufficiently indented and end with a ]'],
  ['services: []\nservices: []', '2:1: found "services" again; expected each key once'],
])('%j is refused with its place', (text, expected) => {
  expect(mistakes(text)).toContain(expected);
});

test('aliases that multiply, and nesting without end, are refused', () => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
    .split('')
    .map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`)
    .join('\n')}`;
  expect(mistakes(bomb)).toHaveLength(1);
  expect(mistakes('['.repeat(100_000)).length).toBeGreaterThan(0);
});

test('mistakes are bounded', () => {
  expect(mistakes(`services: [${'{x: 1},'.repeat(10_000)}]`).length).toBeLessThanOrEqual(40);
});

test('more pieces of YAML than any file needs are refused before they are parsed', () => {
  expect(mistakes(`[${'[],'.repeat(1_200_000)}]`)).toEqual(['1:1: found more than 1750000 pieces of YAML']);
});

test('of many unknown keys, the first ones are looked for', () => {
  const keys = Array.from({ length: 50_000 }, (_, i) => `k${i}: 1\n`).join('');
  const found = mistakes(keys);
  expect(found).toHaveLength(20);
  expect(found[19]).toMatch(/^20:1: k19: found an unknown key/);
});

test('many keys in one map cost what many bytes cost', () => {
  const keys = Array.from({ length: 100_000 }, (_, i) => `k${i}: 1\n`).join('');
  expect(mistakes(`${keys}k7: 1\n`)).toEqual(['100001:1: found "k7" again; expected each key once']);
});
