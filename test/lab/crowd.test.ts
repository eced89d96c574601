import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { AccessLine } from '../support/mesh.ts';
import { Pair } from '../support/pair.ts';
import { at } from '../support/site.ts';
import { type Crowd, traffic } from '../support/traffic.ts';

const PORT = 7000;
const COUNT = 5000;

// 5,000 callers that come in the same moment, more than one tunnel may carry streams: all are served, all at once.
// Strict, so that nobody is served by going past the mesh.
describe('5,000 connections at once', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      properties: { traffic: { mode: 'strict' } },
      // One caller holds them all.
      config: { limits: { callerPercent: 100 } },
    });
  });
  afterAll(() => pair.stop());

  test.each(['ipv4', 'ipv6'] as const)('each is answered with its own bytes (%s)', async (family) => {
    const ip = pair.host('b').address(family);
    const result = await traffic<Crowd>(pair.host('a'), 'crowd', ip, PORT, COUNT);
    const mesh = pair.mesh('a');
    const mine = async () =>
      (await mesh.accessLog()).filter(({ destination }) => destination === at(ip, PORT));
    await expect.poll(async () => (await mine()).length, { timeout: 30_000 }).toBe(COUNT);
    const lines = await mine();
    // The first line of the request, then the word; and the word alone comes back.
    expect(tally(lines)).toEqual({ 'tunnel done null 71 64': COUNT });
    expect(new Set(lines.map(({ callerAddress }) => callerAddress)).size).toBe(COUNT);
    expect(result).toMatchObject({ count: COUNT, echoed: COUNT, openAtOnce: COUNT, failures: {} });
    // Who was not answered within the patience, on a busy machine, went through another tunnel; not a byte went both ways.
    const delivered = async () => {
      const all = (await pair.mesh('b').accessLog()).filter((line) => line.instance === at(ip, PORT));
      return tally(all.filter(({ reason, bytesSent }) => reason !== 'timeout' || bytesSent !== 0));
    };
    await expect.poll(delivered, { timeout: 30_000 }).toEqual({ 'local done null 71 64': COUNT });
  });
});

function tally(lines: readonly AccessLine[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { path, reason, detail, bytesSent, bytesReceived } of lines) {
    const kind = `${path} ${reason} ${detail} ${bytesSent} ${bytesReceived}`;
    sums[kind] = (sums[kind] ?? 0) + 1;
  }
  return sums;
}
