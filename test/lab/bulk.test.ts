import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { at, Site } from '../support/site.ts';
import { Topology } from '../support/topology.ts';
import { type Transfer, traffic, trafficServer } from '../support/traffic.ts';
import { twoZones } from '../support/zones.ts';

const PORT = 7000;
const GIGABYTE = 10 ** 9;
const FAMILIES = [
  { family: 'ipv4', bytes: GIGABYTE },
  { family: 'ipv6', bytes: GIGABYTE / 5 },
] as const;

// Every byte arrives, and in its place: through one tunnel, and through two zone-agents. A gigabyte where bytes matter;
// the other family differs in addresses only.
describe.each(FAMILIES)('$bytes bytes each way on $family', ({ family, bytes }) => {
  let site: Site;
  beforeAll(async () => {
    const topology = await Topology.create('mnlab', twoZones);
    site = await Site.create(topology);
    for (const name of ['b', 'c']) await trafficServer(topology.host(name), PORT);
    await site.start({ services: { traffic: PORT }, tunnels: family });
  });
  afterAll(() => site.topology.stop());

  test.each([
    ['tunnel', 'b', 'up'],
    ['tunnel', 'b', 'down'],
    ['relay', 'c', 'up'],
    ['relay', 'c', 'down'],
  ] as const)('%s to %s, %s', async (path, name, verb) => {
    const ip = site.host(name).address(family);
    const result = await traffic<Transfer>(site.host('a'), verb, ip, PORT, bytes);
    expect(result).toMatchObject({ bytes, match: true });
    const line = await site
      .mesh('a')
      .logged(
        'the transfer',
        (one) => one.destination === at(ip, PORT) && one.bytesSent! + one.bytesReceived! >= bytes,
      );
    expect(line).toMatchObject({ path, reason: 'done' });
  });
});
