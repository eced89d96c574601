import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RulesAnswer } from '../../src/admin/api.ts';
import { balanced } from '../support/books.ts';
import { Pair } from '../support/pair.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { Held, knock } from '../support/traffic.ts';
import { ClearTraffic } from '../support/wire.ts';

const PORT = 7000;

// What the operator lists is never seen by the agent, from the moment the list is read; what lives goes on.
describe.each(['ipv4', 'ipv6'] as const)(
  'an allow-list that is edited while the agent runs (%s)',
  (family) => {
    let pair: Pair;
    beforeAll(async () => {
      pair = await Pair.start({ servers: ['b'], services: { traffic: PORT }, tunnels: family });
    });
    afterAll(() => pair.stop());

    test('new connections go past the agent, and come back when the entry goes', async () => {
      const [a, b, mesh] = [pair.host('a'), pair.host('b'), pair.mesh('a')];
      const ip = b.address(family);
      const rules = async () => (await mesh.api('/v1/rules')) as RulesAnswer;
      const captured = async () => {
        await balanced(mesh);
        return mesh.metric('mesh_node_connections_total', 'direction="outbound"');
      };
      const clear = await ClearTraffic.watch(b, family, a.address(family), PORT);
      const held = await Held.open(a, ip, PORT);
      expect(await knock(a, ip, PORT)).toMatchObject({ echoed: 1 });
      await mesh.logged('it', ({ destination }) => destination === at(ip, PORT));
      expect(await clear.attempts()).toBe(0);

      const entry = family === 'ipv4' ? at(ip, PORT) : `[${ip}]:${PORT - 10}-${PORT + 10}`;
      await mesh.writeAllowList(['# not through the mesh', entry]);
      await waitFor('the list is in force', async () => (await rules()).allowEntries === 1);
      const before = (await mesh.accessLog()).length;
      for (let i = 1; i <= 3; i++) {
        expect(await knock(a, ip, PORT)).toMatchObject({ echoed: 1 });
        expect(await clear.attempts()).toBe(i);
      }
      await held.alive();
      expect(await mesh.accessLog(), 'the agent saw none of them').toHaveLength(before);

      // A line that means nothing: told with its number, and the last good list stays.
      await mesh.writeAllowList([entry, 'not an address at all']);
      const { allowListProblems } = await waitFor('the bad line is told', async () => {
        const answer = await rules();
        return answer.allowListProblems.length > 0 && answer;
      });
      expect(allowListProblems[0]).toContain(':2');
      expect(await mesh.metric('mesh_node_allow_list_errors')).toBe(1);
      expect(await knock(a, ip, PORT)).toMatchObject({ echoed: 1 });
      expect(await clear.attempts()).toBe(4);

      await mesh.writeAllowList([]);
      await waitFor('the list is empty', async () => (await rules()).allowEntries === 0);
      expect(await knock(a, ip, PORT)).toMatchObject({ echoed: 1 });
      expect(await clear.attempts(), 'through the tunnel again').toBe(4);
      await held.alive();
      await held.close();
      expect(await captured(), 'the held one, the first and the last').toBe(3);
    });
  },
);
