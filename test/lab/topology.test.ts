import { afterAll, beforeAll, expect, test } from 'vitest';
import { iperf3, mariadb, nginx, postgres, redis, serf } from '../support/servers.ts';
import { Topology } from '../support/topology.ts';
import { twoZones } from '../support/zones.ts';

// What all other lab tests stand on: hosts that reach each other exactly as far as real ones would, and real servers.

let topology: Topology;
beforeAll(async () => {
  topology = await Topology.create('mnlab', twoZones);
});
afterAll(() => topology.stop());

for (const family of ['ipv4', 'ipv6'] as const) {
  test(`hosts of one zone reach each other, hosts of different zones do not (${family})`, async () => {
    const url = (host: string) =>
      `http://${family === 'ipv6' ? `[${topology.host(host).ipv6}]` : topology.host(host).ipv4}:8080/`;
    if (family === 'ipv4')
      await Promise.all(['b', 'c'].map((name) => nginx(topology.host(name), 8080, name)));
    const a = topology.host('a');
    expect(await a.must(['curl', '-sSg', '--max-time', '3', url('b')])).toBe(`b ${a.address(family)}\n`);
    const across = await a.exec(['curl', '-sSg', '--max-time', '3', url('c')]);
    expect(across.code, across.stderr).toBe(7); // could not connect, said at once by the router
    const gateway = await topology.host('gw1a').exec(['curl', '-sSg', '--max-time', '3', url('c')]);
    expect(gateway.code).toBe(7);
  });
}

test('real servers answer', async () => {
  const a = topology.host('a');
  const b = topology.host('b');
  await Promise.all([redis(b), postgres(b), mariadb(b), iperf3(b), serf(b, { tags: { services: 'web' } })]);
  expect(await a.must(['redis-cli', '-h', b.ipv4, 'ping'])).toBe('PONG\n');
  expect(await a.must(['psql', '-h', b.ipv6, '-U', 'postgres', '-Atc', 'select inet_client_addr()'])).toBe(
    `${a.ipv6}\n`,
  );
  const query = ['mariadb', '--no-defaults', '-h', b.ipv4, '-u', 'root', '-Ne', 'select 6 * 7'];
  expect(await a.must(query)).toBe('42\n');
  expect(await b.must(['serf', 'members', '-tag', 'services=web'])).toContain('alive');
});
