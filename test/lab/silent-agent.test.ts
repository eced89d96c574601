import { afterEach, describe, expect, test } from 'vitest';
import { type AccessLine, TUNNEL_PORT } from '../support/mesh.ts';
import { Pair } from '../support/pair.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Crowd, knock, Loading } from '../support/traffic.ts';
import { blackhole, ClearTraffic } from '../support/wire.ts';

const OPEN = 7000;
const CLOSED = 7001;
/** What the caller of a permissive service may lose by an agent that is gone, hung or cut off. */
const DIRECT_WITHIN_MS = 2000;
/** `tunnel.keepaliveInterval` of the test; a silent tunnel is lost after two unanswered ones. */
const KEEPALIVE_MS = 1000;
/** `tunnel.handshakeTimeout` of the test: bound on a dial. */
const HANDSHAKE_MS = 2000;
/** `balance.agentPatience`, as it is by default. */
const PATIENCE_MS = 1000;
/** A caller of a server that speaks first says nothing for this long. */
const SILENT_MS = 1500;
/** What anything else may take on a busy machine. */
const SLACK_MS = 2000;
/** A tunnel that owes an answer after the patience has another second to prove that it lives. */
const PROOF_MS = 1000;
const RESET_WITHIN_MS = PATIENCE_MS + PROOF_MS + SLACK_MS;
/** A tunnel that was silent for a second is quiet; the kernel's clock and the agent's differ a little. */
const QUIET_MS = 1200;
/** `tunnel.keepaliveInterval` where it must not find the loss first. */
const UNHURRIED = '10s';
const LOST_WITHIN_MS = 4 * KEEPALIVE_MS + SLACK_MS;

type Family = 'ipv4' | 'ipv6';
/** Takes the agent of b away; the answer brings it back. */
type Loss = (pair: Pair, family: Family) => Promise<() => Promise<unknown>>;

const losses: Readonly<Record<string, Loss>> = {
  killed: async (pair) => {
    const mesh = pair.mesh('b');
    await mesh.signalAll('SIGKILL');
    await mesh.running.ended;
    return () => mesh.start();
  },
  stopped: async (pair) => {
    const mesh = pair.mesh('b');
    const pids = await mesh.signalAll('SIGSTOP');
    return () => mesh.signalAll('SIGCONT', pids);
  },
  'cut off': (pair, family) => blackhole(pair.host('b'), family, TUNNEL_PORT),
};

// The agent of the other host does not answer any more. What is permissive is reached without it; what is strict is
// refused within a bound, and never goes in the clear.
describe.each(['killed', 'stopped', 'cut off'])('the agent of the other host is %s', (name) => {
  let pair: Pair;
  let family: Family;
  let clear: { readonly open: ClearTraffic; readonly closed: ClearTraffic };
  let restore: (() => Promise<unknown>) | undefined;

  const start = async (
    tunnels: Family,
    keepaliveInterval: string,
    meanwhile: () => Promise<void> = async () => {},
  ): Promise<void> => {
    family = tunnels;
    pair = await Pair.start({
      servers: ['b'],
      services: { open: OPEN, closed: CLOSED },
      properties: { closed: { mode: 'strict' } },
      tunnels,
      config: { tunnel: { keepaliveInterval, handshakeTimeout: '2s' } },
    });
    const from = pair.host('a').address(family);
    clear = {
      open: await ClearTraffic.watch(pair.host('b'), family, from, OPEN),
      closed: await ClearTraffic.watch(pair.host('b'), family, from, CLOSED),
    };
    for (const port of [OPEN, CLOSED]) expect(await call(port)).toMatchObject({ echoed: 1 });
    expect(await clear.open.attempts(), 'all of it goes through the tunnel').toBe(0);
    await meanwhile();
    restore = await losses[name]!(pair, family);
  };

  const call = (port: number, waitMs?: number): Promise<Crowd> =>
    knock(pair.host('a'), pair.host('b').address(family), port, waitMs);

  const tunnelIsLost = () =>
    waitFor(
      'the tunnel is lost',
      async () => (await pair.mesh('a').metric('mesh_node_tunnels', 'open', 'dialled')) === 0,
      { timeoutMs: LOST_WITHIN_MS },
    );

  /** At least so many lines. */
  const written = async (port: number, count: number): Promise<AccessLine[]> => {
    const destination = at(pair.host('b').address(family), port);
    return waitFor('it is written down', async () => {
      const lines = (await pair.mesh('a').accessLog()).filter((line) => line.destination === destination);
      return lines.length >= count && lines;
    });
  };

  const refusedInTime = ({ echoed, echoMs, failures }: Crowd, withinMs: number): void => {
    expect(echoed).toBe(0);
    expect(Object.keys(failures)).toEqual([expect.stringContaining('ECONNRESET')]);
    expect(echoMs).toBeLessThan(withinMs);
  };

  /** Nobody answers for it, and the kernel says so. */
  const connectRefused = ({ failures }: Crowd): boolean =>
    Object.keys(failures).length === 1 && Object.keys(failures)[0]!.includes('ECONNREFUSED');

  afterEach(async () => {
    if (name !== 'killed') await restore?.();
    await pair.stop(['b']);
  });

  test('without a tunnel (IPv4)', async () => {
    await start('ipv4', `${KEEPALIVE_MS}ms`);
    await tunnelIsLost();
    for (let i = 1; i <= 2; i++) {
      const [open, closed] = await Promise.all([call(OPEN), call(CLOSED)]);
      expect(open).toMatchObject({ echoed: 1 });
      // What the first caller found out the next one need not wait for.
      expect(open.echoMs).toBeLessThan(i === 1 ? DIRECT_WITHIN_MS : PATIENCE_MS);
      expect(await clear.open.attempts()).toBe(i);
      if (i === 1) {
        refusedInTime(closed, HANDSHAKE_MS + SLACK_MS);
        await waitFor('connect() is refused', async () => connectRefused(await call(CLOSED)));
      } else expect(connectRefused(closed)).toBe(true);
    }
    const paths = (await written(OPEN, 3)).map(({ path, reason }) => `${path} ${reason}`);
    expect(paths).toEqual(['tunnel done', 'direct done', 'direct done']);
    const [, ...lost] = await written(CLOSED, 2);
    for (const { path, bytesReceived } of lost)
      expect({ path, bytesReceived }).toEqual({ path: 'tunnel', bytesReceived: 0 });
    await restore?.();
    restore = undefined;
    const back = await waitFor('the tunnel is used again', async () => (await call(CLOSED)).echoed === 1, {
      timeoutMs: 30_000,
      intervalMs: 50,
    });
    expect(back).toBe(true);
    expect(await clear.closed.attempts(), 'nothing strict went in the clear').toBe(0);
  });

  /** Kernel's word for it: nothing has come over the tunnel for longer than what counts as silence. */
  const quiet = () =>
    waitFor('the tunnel is silent', async () => {
      const port = `dport = :${TUNNEL_PORT}`;
      const sockets = await pair.host('a').must(['ss', '-Htin', 'state', 'established', port]);
      const silence = [...sockets.matchAll(/\blastrcv:(\d+)/g)].map(([, ms]) => Number(ms));
      return silence.every((ms) => ms > QUIET_MS) && (name === 'killed' || silence.length > 0);
    });

  test('with a tunnel that stands, silent for a while (IPv6)', async () => {
    await start('ipv6', UNHURRIED);
    await quiet();
    const [spoke, waits, closed] = await Promise.all([call(OPEN), call(OPEN, SILENT_MS), call(CLOSED)]);
    refusedInTime(closed, RESET_WITHIN_MS);
    expect(await clear.closed.attempts(), 'nothing strict went in the clear').toBe(0);
    // What a caller says waits for the agent's answer, so it loses nothing by going elsewhere.
    expect(spoke).toMatchObject({ echoed: 1 });
    expect(spoke.echoMs).toBeLessThan(DIRECT_WITHIN_MS + SLACK_MS);
    expect(waits).toMatchObject({ echoed: 1 });
    expect(waits.echoMs).toBeLessThan(SILENT_MS + DIRECT_WITHIN_MS - PATIENCE_MS + SLACK_MS);
    expect(await clear.open.attempts()).toBe(2);
  });

  test('with a tunnel that was heard from just before (IPv6)', async () => {
    const parallel = 4;
    let loading: Loading | undefined;
    await start('ipv6', `${KEEPALIVE_MS}ms`, async () => {
      loading = await Loading.start(pair.host('a'), pair.host('b').address(family), OPEN, parallel);
    });
    refusedInTime(await call(CLOSED), RESET_WITHIN_MS);
    expect(await clear.closed.attempts(), 'nothing strict went in the clear').toBe(0);
    // First bytes that are in the tunnel may have been heard already, and nobody but the caller itself may say them
    // twice: it is reset as soon as the tunnel is known to be lost, or before that if it was not accepted yet. What comes
    // after that goes direct.
    await loading!.progress();
    const { done, failures, worstMs } = await loading!.stop();
    expect(done).toBeGreaterThan(parallel);
    expect(worstMs).toBeLessThan(LOST_WITHIN_MS);
    for (const failure of Object.keys(failures)) expect(failure).toMatch(/ECONNRESET|EPIPE/);
    const lost = Object.values(failures).reduce((sum, count) => sum + count, 0);
    expect(lost).toBeLessThanOrEqual(parallel);
    if (name !== 'killed') expect(lost).toBeGreaterThan(0);
  });
});
