import { beforeEach, expect, test, vi } from 'vitest';
import { MOST_ASKED, type RedirectedConnection, SourcePorts } from '../../../src/caller/source-ports.ts';
import { sourcePortsOf } from '../../../src/daemon/supervisor/source-ports.ts';
import type { Ip } from '../../../src/model/address.ts';

const connection = (port: number): RedirectedConnection => ({
  listener: { ip: '127.0.0.1' as Ip, port: 15_001 },
  client: { ip: '10.0.0.1' as Ip, port },
});

let sources: SourcePorts;
let questions: { readonly id: number; readonly ports: readonly number[] }[];
beforeEach(() => {
  questions = [];
  sources = new SourcePorts();
  sources.ask = (id, connections) =>
    questions.push({ id, ports: connections.map(({ client }) => client.port) });
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('all connections of a turn are one question', async () => {
  const found: number[][] = [];
  for (const port of [1, 2, 3]) sources.find(connection(port), (real) => found.push([port, real]));
  await turn();
  sources.find(connection(4), (real) => found.push([4, real]));
  await turn();
  expect(questions.map(({ ports }) => ports)).toEqual([[1, 2, 3], [4]]);
  sources.answered(questions[1]!.id, [44]);
  sources.answered(questions[0]!.id, [11, 22]);
  sources.answered(questions[0]!.id, [99, 99, 99]);
  sources.answered(1_000, [1]);
  expect(found).toEqual([
    [4, 44],
    [1, 11],
    [2, 22],
    [3, 0],
  ]);
});

test('nobody to ask, or too much at once: it is not asked', async () => {
  for (let port = 0; port < MOST_ASKED; port++) expect(sources.find(connection(port), () => {})).toBe(true);
  expect(sources.find(connection(1), () => {})).toBe(false);
  await turn();
  expect(sources.find(connection(1), () => {})).toBe(true);
  sources.ask = undefined;
  expect(sources.find(connection(1), () => {})).toBe(false);
});

test('questions that nobody answers do not pile up', async () => {
  const told = vi.fn();
  for (let i = 0; i < 65; i++) {
    sources.find(connection(i), told);
    await turn();
  }
  sources.answered(questions[0]!.id, [1]);
  expect(told).not.toHaveBeenCalled();
  sources.answered(questions[1]!.id, [1]);
  expect(told).toHaveBeenCalledOnce();
});

test.each([
  [undefined, []],
  ['text', []],
  [
    [undefined, 1, {}, { listener: {}, client: {} }, { listener: 1, client: 'x' }],
    [0, 0, 0, 0, 0],
  ],
  [[{ ...connection(1), client: { ip: 'x'.repeat(100_000), port: 1 } }], [0]],
  [[{ ...connection(1), client: { ip: '10.0.0.1', port: '1' } }], [0]],
  [[connection(1)], [0]],
])('a worker that asks %j is answered, whatever it is', (asked, ports) => {
  expect(sourcePortsOf(asked as never)).toEqual(ports);
});
