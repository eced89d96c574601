import { describe, expect, test } from 'vitest';
import { DocumentError, parseCatalogueDocument } from '../../src/registry/document.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

const good = `# a comment
services:
  - name: web
    protocol: http
    mode: strict
    interchangeable: true
    hosts: [www.shop, "shop"]
    addresses: ["10.9.0.1:80", '[fd00::9]:80']
    instances:
      - &one { id: web-1, address: 10.0.0.1:8080, node: host-1, weight: 50, draining: false }
      - address: 10.0.0.2:8080
        labels: { version: "2" }
nodes:
  - name: host-1
    zone: dc1
    tunnel: 10.0.0.1:15008
`;
const pieces = [
  '- ',
  ': ',
  '\n',
  '  ',
  '{',
  '}',
  '[',
  ']',
  '*one',
  '&a ',
  '"',
  "'",
  '#',
  '|\n',
  '!!js ',
  'null',
  '0x1',
  '1e9',
  '.inf',
  '<<: *one',
  '---\n',
  '...\n',
  '%YAML 1.1\n',
  'name',
  'services',
  '\t',
  '\r\n',
  '\u0000',
  '\u2028',
  '? ',
];

function read(text: string): void {
  try {
    const { services, nodes } = parseCatalogueDocument(text);
    for (const service of services) expect(service.name).toMatch(/^[a-z0-9.-]+$/);
    for (const node of nodes) expect(node.tunnel.port).toBeGreaterThan(0);
  } catch (error) {
    if (!(error instanceof DocumentError)) throw new Error(JSON.stringify(text), { cause: error });
    expect(error.mistakes.length).toBeGreaterThan(0);
    for (const mistake of error.mistakes) expect(mistake).toMatch(/^\d+:\d+: ./s);
  }
}

describe('catalogue file', () => {
  test('generated texts end in a valid document or in mistakes with their places', () => {
    const random = new FuzzRandom(fuzzSeed('catalogue-file'));
    for (let run = 0; run < fuzzRuns; run++) {
      let text = good;
      for (let i = random.below(3); i >= 0; i--) {
        const at = random.below(text.length + 1);
        const piece = pieces[random.below(pieces.length)]!;
        const cut = random.below(3) === 0 ? random.below(30) : 0;
        text = text.slice(0, at) + (random.below(3) === 0 ? '' : piece) + text.slice(at + cut);
      }
      read(random.below(10) === 0 ? random.mutated(Buffer.from(text)).toString('utf8') : text);
    }
  });

  test('the file cut at every character', () => {
    for (let length = 0; length <= good.length; length++) read(good.slice(0, length));
  });
});
