import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConnectionsAnswer, TunnelsAnswer } from '../../src/admin/api.ts';
import { balanced, settled } from '../support/books.ts';
import { waitFor } from '../support/process.ts';
import { at, Site } from '../support/site.ts';
import { Topology } from '../support/topology.ts';
import { Held, knock, Loading, trafficServer } from '../support/traffic.ts';
import { twoZones } from '../support/zones.ts';

const PORT = 7000;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const NEAR = ['gw1a', 'gw1b'] as const;
const GATEWAYS = [...NEAR, 'gw2a', 'gw2b'];

// Two zones whose hosts have no route to each other, two zone-agents on each side, all tunnels on IPv6.
describe('zone-agents that die under load', () => {
  let site: Site;
  beforeAll(async () => {
    site = await Site.create(await Topology.create('mnlab', twoZones));
    await trafficServer(site.host('c'), PORT);
    await site.start({ services: { traffic: PORT }, tunnels: 'ipv6', agents: ['a', 'c', ...GATEWAYS] });
  });
  afterAll(async () => {
    const ended = NEAR.filter((name) => !site.mesh(name).running.running);
    const alive = ['a', 'c', ...GATEWAYS].filter((name) => !ended.includes(name as never));
    try {
      await settled(
        alive.map((name) => site.mesh(name)),
        [PORT],
        [...NEAR],
        true,
      );
    } finally {
      await site.topology.stop();
    }
  });

  /** Zone-agents of our side that carry a session now. */
  async function carriers(): Promise<string[]> {
    const found: string[] = [];
    for (const name of NEAR) {
      if (!site.mesh(name).running.running) continue;
      const { total } = (await site.mesh(name).api('/v1/connections')) as ConnectionsAnswer;
      if (total > 0) found.push(name);
    }
    return found;
  }

  async function kill(name: string): Promise<void> {
    await site.mesh(name).signalAll('SIGKILL');
    await site.mesh(name).running.ended;
  }

  const reach = (family: 'ipv4' | 'ipv6') => knock(site.host('a'), site.host('c').address(family), PORT);

  test('sessions through it end, the next connections take the other one; without any they are refused', async () => {
    const a = site.host('a');
    const c = site.host('c');
    const held = await Held.open(a, c.ipv4, PORT);
    const parallel = 3;
    const loading = await Loading.start(a, c.ipv6, PORT, parallel);
    const carrying = await carriers();
    expect(carrying, 'one session between two hosts').toHaveLength(1);
    const [first] = carrying;
    // A session that is lost in its first second counts as a failed dial, and nobody dials for a moment then.
    await waitFor('the session is no longer new', async () => {
      const { tunnels } = (await site.mesh('a').api('/v1/tunnels')) as TunnelsAnswer;
      return tunnels.some(({ peer, since }) => peer === 'c' && since > 0 && Date.now() - since > 1500);
    });
    await kill(first!);
    expect(await held.ended()).toContain('ECONNRESET');
    await loading.progress();
    const { failures, done } = await loading.stop();
    expect(done).toBeGreaterThan(parallel);
    // What was in the session, and not one more.
    expect(Object.values(failures).reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(parallel);
    expect(await carriers()).toEqual(NEAR.filter((name) => name !== first));
    const lost = await site
      .mesh('a')
      .logged('the held one', ({ destination }) => destination === at(c.ipv4, PORT));
    expect(lost).toMatchObject({ path: 'relay', reason: 'tunnel-lost', service: 'traffic' });

    const again = await Held.open(a, c.ipv4, PORT);
    const second = NEAR.find((name) => name !== first)!;
    await kill(second);
    expect(await again.ended()).toContain('ECONNRESET');
    for (const family of FAMILIES) {
      const { echoed, failures: why } = await reach(family);
      expect(echoed).toBe(0);
      expect(Object.keys(why)).toEqual([expect.stringContaining('ECONNRESET')]);
    }

    await site.mesh(second).start();
    for (const family of FAMILIES) {
      await waitFor('it is reached again', async () => (await reach(family)).echoed === 1, {
        timeoutMs: 30_000,
        intervalMs: 100,
      });
    }
    await balanced(site.mesh('a'), true);
    const lines = await site.mesh('a').accessLog();
    const whole = lines.filter(({ path, reason }) => path === 'relay' && reason === 'done');
    expect(whole).toHaveLength(done + FAMILIES.length);
    const directly = lines.filter(({ path }) => path === 'direct' || path === 'passthrough');
    expect(directly, 'there is no way without a zone-agent').toEqual([]);
  });
});
