import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { balanced } from '../support/books.ts';
import { Pair } from '../support/pair.ts';
import { type Transfer, traffic, trafficServer } from '../support/traffic.ts';

const PORT = 7000;
/** No service: never captured. */
const PLAIN = 7001;
const MB = 10 ** 6;
const LINE = { delayMs: 25, bytesPerSecond: 25 * MB };
const BYTES = 60 * MB;
const ROUNDS = 2;
const MOST_ROUNDS = 6;

// Two hosts 50 ms apart: windows have to grow with the delay, or the tunnel would be slow.
describe.each([
  ['ipv4', 'up'],
  ['ipv6', 'down'],
] as const)('at 50 ms round trip (%s, %s)', (family, verb) => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      properties: { traffic: { mode: 'strict' } },
      tunnels: family,
      line: LINE,
    });
    await trafficServer(pair.host('b'), PLAIN);
  });
  afterAll(() => pair.stop());

  test('the tunnel carries 0.8 of a direct connection', async () => {
    const ip = pair.host('b').address(family);
    const speed = async (port: number): Promise<number> => {
      const result = await traffic<Transfer>(pair.host('a'), verb, ip, port, BYTES);
      expect(result).toMatchObject({ bytes: BYTES, match: true });
      return BYTES / result.ms / 1000;
    };
    const direct: number[] = [];
    const tunnel: number[] = [];
    do {
      direct.push(await speed(PLAIN));
      tunnel.push(await speed(PORT));
    } while (
      direct.length < ROUNDS ||
      (Math.max(...tunnel) < 0.8 * Math.max(...direct) && direct.length < MOST_ROUNDS)
    );
    expect(Math.max(...tunnel), `MB/s: ${tunnel}; direct: ${direct}`).toBeGreaterThan(
      0.8 * Math.max(...direct),
    );
    await balanced(pair.mesh('a'));
    const lines = await pair.mesh('a').accessLog();
    expect(lines, 'only the tunnel is seen by the agent').toHaveLength(tunnel.length);
    // A line of request and 32 bytes of digest beside the bytes themselves.
    for (const { path, reason, bytesSent, bytesReceived } of lines) {
      expect(`${path} ${reason}`).toBe('tunnel done');
      expect(bytesSent! + bytesReceived!).toBe(`${verb} ${BYTES}\n`.length + BYTES + 32);
    }
  });
});
