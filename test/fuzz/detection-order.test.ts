import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DetectionBench } from '../unit/proxy/detection-bench.ts';
import type { MemoryChannel } from '../unit/proxy/memory-channel.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`detection order fuzz: seed ${seed}, ${runs} runs`);

/** One side's bytes in pieces, its end behind them; told only while its channel is not paused. */
class Speaker {
  readonly channel: MemoryChannel;
  readonly #pieces: string[];
  ended = false;

  constructor(channel: MemoryChannel, pieces: readonly string[]) {
    this.channel = channel;
    this.#pieces = [...pieces];
  }

  speak(): boolean {
    const { channel } = this;
    if (channel.paused || channel.closed || channel.resetWith !== undefined || this.ended) return false;
    const piece = this.#pieces.shift();
    if (piece === undefined) {
      this.ended = true;
      channel.handler.end();
    } else channel.handler.data(Buffer.from(piece, 'latin1'));
    return true;
  }
}

const heard = ({ written }: MemoryChannel) => Buffer.concat(written).toString('latin1');

const said = fc.oneof(
  fc.constantFrom(
    ...[
      'GET / HTTP/1.1\r\nhost: a\r\n\r\nrest',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest',
      'GET',
      '',
      'PING\r\n',
    ],
    ...['\r\nPOST /a HTTP/1.0\r\n\r\n', '\x16\x03\x01\0\xff\x01hello', 'GET key\r\nmore'],
  ),
  fc.string({ maxLength: 30 }),
);
const pieces = fc.tuple(said, fc.array(fc.nat(40), { maxLength: 5 })).map(([text, cuts]) => {
  const places = [0, ...cuts.map((at) => Math.min(at, text.length)), text.length].sort((a, b) => a - b);
  return places
    .slice(1)
    .map((to, at) => text.slice(places[at], to))
    .filter((piece) => piece !== '');
});
const step = fc.constantFrom('caller', 'service', 'open', 'refuse', 'full', 'drain', 'expire');

test('in any order of what both sides do, what goes in comes out', async () => {
  const ways: Record<string, number> = {};
  await fc.assert(
    fc.asyncProperty(
      pieces,
      pieces,
      fc.array(step, { maxLength: 14 }),
      fc.boolean(),
      fc.boolean(),
      async (fromCaller, fromService, steps, viaAgent, expected) => {
        const bench = new DetectionBench();
        bench.viaAgent = viaAgent;
        if (expected) bench.expectHttp();
        bench.start();
        const caller = new Speaker(bench.client, fromCaller);
        let service: Speaker | undefined;
        let http = '';
        let httpEnded = false;
        /** What the stage of HTTP does: it takes what was said, and reads on. */
        const serve = () => {
          if (bench.http === undefined || http !== '') return;
          http = bench.begun;
          httpEnded = bench.http.begun!.ended;
          bench.client.handler = {
            data: (bytes) => (http += Buffer.from(bytes).toString('latin1')),
            end: () => (httpEnded = true),
            drain: () => {},
            close: () => {},
          };
          bench.client.resume();
        };
        const open = () => {
          const upstream = bench.upstreams.at(-1);
          if (upstream === undefined) return;
          if (service !== undefined || upstream.closed || upstream.resetWith !== undefined) return;
          service = new Speaker(upstream, fromService);
          bench.opens();
        };
        const act = {
          caller: () => caller.speak(),
          service: () => service?.speak(),
          open,
          refuse: () => {
            if (service === undefined && bench.upstreams.length > 0)
              bench.upstream.close({ reason: 'refused', delivered: false, source: 'callee' });
          },
          full: () => {
            if (bench.upstreams.length > 0) bench.upstream.full = true;
          },
          drain: () => {
            if (service !== undefined && bench.upstream.full) {
              bench.upstream.full = false;
              bench.upstream.handler.drain();
            }
          },
          expire: () => bench.expire(),
        };
        for (const each of steps) {
          act[each]();
          // Channels tell of their end in a microtask.
          await undefined;
          serve();
        }
        // Both say the rest of it.
        act.open();
        serve();
        act.drain();
        for (let more = true; more; ) {
          serve();
          more = caller.speak();
          serve();
          act.open();
          serve();
          more = (service?.speak() ?? false) || more;
        }
        const all = fromCaller.join('');
        const [how = 'none', ...others] = bench.detected;
        expect(others).toEqual([]);
        if (bench.http !== undefined) {
          expect([http, httpEnded]).toEqual([all, true]);
          expect(bench.upstreams.map(heard).join('')).toBe('');
        } else if (bench.client.resetWith !== undefined) {
          // Nobody could be reached.
          expect(service).toBeUndefined();
        } else {
          expect([heard(bench.upstream), bench.upstream.ended]).toEqual([all, true]);
          expect([heard(bench.client), bench.client.ended]).toEqual([fromService.join(''), true]);
          bench.upstream.close({ reason: 'done', delivered: true });
          bench.client.close({ reason: 'done', delivered: true });
          expect(bench.records).toMatchObject([
            { bytesSent: all.length, bytesReceived: fromService.join('').length, reason: 'done' },
          ]);
        }
        expect(bench.timers.size).toBe(0);
        ways[how] = (ways[how] ?? 0) + 1;
      },
    ),
    { numRuns: runs, seed },
  );
  for (const how of ['http', 'http2', 'tls', 'other', 'timeout', 'ended', 'server-first'])
    expect(ways[how] ?? 0, how).toBeGreaterThan(runs / 1000);
});
