import { createServer } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test, vi } from 'vitest';
import { MeshError } from '../../src/model/errors.ts';
import { Catalogue } from '../../src/registry/catalogue.ts';
import {
  LineSplitter,
  MAX_ANSWER_BYTES,
  readFailure,
  readRange,
  readToken,
  readWatch,
} from '../../src/registry/etcd-answers.ts';
import { EtcdSource } from '../../src/registry/etcd-source.ts';
import { KeyedCatalogue } from '../../src/registry/keyed-catalogue.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const instance = JSON.stringify({
  address: '10.0.0.1:80',
  node: 'h1',
  zone: 'a',
  labels: { v: '1' },
  weight: 7,
  draining: true,
});
const service = JSON.stringify({
  protocol: 'http',
  mode: 'strict',
  hosts: ['a.example'],
  addresses: ['10.9.0.1:80'],
  ports: [80],
  source: 'node',
});
const node = JSON.stringify({ zone: 'a', tunnel: '10.0.0.1:15008' });
const keys = [
  ['services/web', service],
  ['services/web/instances/a', instance],
  ['services/web/instances/b/c', instance],
  ['nodes/h1', node],
] as const;

/* As etcd 3.4 says it. */
const head = '"header":{"cluster_id":"324952591200643719","member_id":"1","revision":"5","raft_term":"2"}';
const kv = ([key, value]: readonly [string, string]) =>
  `{"key":"${base64(`/mesh-node/${key}`)}","create_revision":"2","mod_revision":"2","version":"1","value":"${base64(value)}"}`;
const range = Buffer.from(`{${head},"kvs":[${keys.map(kv).join()}],"more":true,"count":"9"}`);
const watch = Buffer.from(
  [
    `{"result":{${head},"created":true}}`,
    `{"result":{${head},"events":[${keys.map((one) => `{"kv":${kv(one)}}`).join()}]}}`,
    `{"result":{${head},"fragment":true,"events":[{"type":"DELETE","kv":{"key":"${base64('/mesh-node/nodes/h1')}","mod_revision":"5"}}]}}`,
    `{"result":{${head}}}`,
    `{"result":{${head},"canceled":true,"compact_revision":"3"}}`,
    '',
  ].join('\n'),
);

/** Runs it; whatever the bytes are, it must end in an answer or a MeshError. */
function meshErrorsOnly(bytes: Buffer, run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof MeshError)) throw new Error(bytes.toString('hex'), { cause: error });
  }
}

function readLines(pieces: readonly Buffer[]): string[] {
  const splitter = new LineSplitter();
  return pieces.flatMap((piece) => splitter.push(piece));
}

describe('answers of etcd', () => {
  test('a stream split at every byte has the same lines', () => {
    const whole = readLines([watch]);
    expect(whole.map((line) => readWatch(line).kind)).toEqual([
      'created',
      'events',
      'events',
      'progress',
      'compacted',
    ]);
    for (let at = 0; at <= watch.length; at++)
      expect(readLines([watch.subarray(0, at), watch.subarray(at)])).toEqual(whole);
    expect(readLines(Array.from(watch, (_, i) => watch.subarray(i, i + 1)))).toEqual(whole);
  });

  test('a line without end is refused, in whatever pieces it comes', () => {
    const splitter = new LineSplitter();
    const piece = Buffer.alloc(1024, 'x');
    for (let length = 0; length < MAX_ANSWER_BYTES; length += piece.length) splitter.push(piece);
    expect(() => splitter.push(piece)).toThrow(MeshError);
  });

  test('generated answers end in answers or in a MeshError', () => {
    const random = new FuzzRandom(fuzzSeed('etcd-answers'));
    for (let run = 0; run < fuzzRuns; run++) {
      const from = random.below(2) === 0 ? range : watch;
      const bytes = random.below(4) === 0 ? random.bytes(random.below(200)) : random.mutated(from);
      meshErrorsOnly(bytes, () => void readRange(bytes.toString()));
      meshErrorsOnly(bytes, () => void readToken(bytes.toString()));
      expect(readFailure(500, bytes.toString()).length).toBeLessThan(300);
      meshErrorsOnly(bytes, () => {
        for (const line of readLines(random.pieces(bytes))) readWatch(line);
      });
    }
  });

  test('generated keys and values never throw, and leave nothing when they are gone', () => {
    const random = new FuzzRandom(fuzzSeed('etcd-keys'));
    const catalogue = new KeyedCatalogue();
    const put: string[] = [];
    for (let run = 0; run < fuzzRuns; run++) {
      const [key, value] = keys[random.below(keys.length)]!;
      const name = random.below(2) === 0 ? key : random.mutated(Buffer.from(key)).toString();
      const bytes = random.below(8) === 0 ? Buffer.from(value) : random.mutated(Buffer.from(value));
      catalogue.put(name, String(run), bytes);
      put.push(name);
      if (random.below(3) === 0) catalogue.remove(put[random.below(put.length)]!);
      if (random.below(100) !== 0) continue;
      for (const { instances } of catalogue.document().services)
        expect(new Set(instances.map(({ id }) => id)).size).toBe(instances.length);
      for (const problem of catalogue.problems) expect(problem.length).toBeLessThan(1000);
    }
    catalogue.beginList(false);
    catalogue.endList();
    expect(catalogue.document()).toEqual({ services: [], nodes: [] });
    expect(catalogue).toMatchObject({ problems: [], complete: true, empty: true });
  });

  test('a server that answers anything costs neither the process nor what is known', async () => {
    const random = new FuzzRandom(fuzzSeed('etcd-server'));
    let answered = 0;
    const server = createServer((request, response) => {
      answered++;
      response.on('error', () => undefined);
      request.resume();
      const good =
        request.url === '/v3/kv/range' ? Buffer.from(range.toString().replace('true', 'false')) : watch;
      const first = answered === 1;
      const bytes = first
        ? good
        : random.below(3) === 0
          ? random.bytes(random.below(2000))
          : random.mutated(good);
      if (first || random.below(4) > 0)
        response.writeHead(first || random.below(4) > 0 ? 200 : random.below(500) + 200);
      else {
        response.socket?.end(bytes);
        return;
      }
      for (const piece of random.pieces(bytes)) response.write(piece);
      if (first || random.below(8) > 0) response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const log = { info: () => undefined, warn: () => undefined };
    // Several sources with several endpoints, so that there are many attempts before a pause.
    const sources = Array.from(
      { length: 10 },
      (_, i) =>
        new EtcdSource({
          endpoints: Array.from({ length: 16 }, () => `127.0.0.1:${port}`),
          prefix: `/mesh-node${i === 0 ? '' : i}`,
          user: undefined,
          passwordFile: undefined,
          tls: undefined,
          resyncInterval: 20,
          timeout: 20,
          context: { zone: 'here', balance: 'round-robin', log },
        }),
    );
    const catalogue = new Catalogue(sources, log);
    try {
      catalogue.start();
      await vi.waitFor(() => expect(answered).toBeGreaterThan(150), { timeout: 30_000, interval: 20 });
    } finally {
      const stopped = catalogue.stop();
      expect(await Promise.race([stopped.then(() => 'stopped'), delay(5000, 'hangs')])).toBe('stopped');
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });
});
