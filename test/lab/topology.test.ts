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
  const [a, b, c] = ['a', 'b', 'c'].map((name) => topology.host(name)) as never as [
    ReturnType<typeof topology.host>,
    ReturnType<typeof topology.host>,
    ReturnType<typeof topology.host>,
  ];
  const t = performance.now();
  const lap = (w: string) => console.log(w, (performance.now() - t).toFixed(0));
  await Promise.all([
    redis(b).then(() => lap('redis')),
    postgres(b).then(() => lap('pg')),
    mariadb(b).then(() => lap('maria')),
    iperf3(b).then(() => lap('iperf')),
    serf(b, { tags: { services: 'web' } }).then(() => lap('serf')),
    c,
  ]);
  expect(await a.must(['redis-cli', '-h', b.ipv4, 'ping'])).toBe('PONG\n');
  expect(await a.must(['psql', '-h', b.ipv6, '-U', 'postgres', '-Atc', 'select inet_client_addr()'])).toBe(
    `${a.ipv6}\n`,
  );
  expect(
    await a.must(['mariadb', '--no-defaults', '-h', b.ipv4, '-u', 'root', '-N', '-e', 'select 6*7']),
  ).toBe('42\n');
  lap('done');
});
