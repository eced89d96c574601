import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Container, Docker } from '../support/docker.ts';
import { type AccessLine, Authority, MeshHost, Program, TUNNEL_PORT } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { nginx } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { SystemdAgent } from '../support/systemd-agent.ts';
import { SystemdHost } from '../support/systemd-host.ts';
import { Topology } from '../support/topology.ts';

/*
 * Containers of a real dockerd on a, which manages its own rules in both families, call a service on b. The tests are one
 * story: each begins where the one before ended.
 */

const FAMILIES = ['ipv4', 'ipv6'] as const;
type Family = (typeof FAMILIES)[number];
const PORT = 8080;
/** Port of a that docker leads to the container `web`. */
const PUBLISHED = 8090;

let topology: Topology;
let booted: Promise<SystemdHost> | undefined;
let a: SystemdHost;
let docker: Docker;
let web: Container;
let shop: Container;
let agent: SystemdAgent;
let b: MeshHost;
let catalogue: Parameters<typeof SystemdAgent.start>[2]['catalogue'];
let authority: Authority;
/** What docker had put into the tables before there was an agent. */
let before: string;

beforeAll(async () => {
  topology = await Topology.create('mncb', {
    networks: { lan: { ipv4: '10.95.1', ipv6: 'fd95:1', router: false } },
    hosts: { a: { lan: 1 }, b: { lan: 2 } },
  });
  const program = await Program.prepare(topology);
  authority = await Authority.create(`${topology.directory}/ca`);
  const [onA, onB] = [topology.host('a'), topology.host('b')];
  catalogue = {
    services: [
      {
        name: 'orders',
        protocol: 'tcp',
        instances: FAMILIES.map((family) => ({ address: at(onB.address(family), PORT), node: 'b' })),
      },
    ],
    nodes: [onA, onB].map(({ name, ipv4 }) => ({ name, zone: 'default', tunnel: at(ipv4, TUNNEL_PORT) })),
  };
  booted = SystemdHost.boot(topology, 'a');
  await nginx(onB, PORT, 'b');
  b = await MeshHost.start(onB, program, authority, {
    zone: 'default',
    grants: { host: ['orders'] },
    catalogue,
  });
  a = await booted;
  docker = await Docker.start(a, { ipv4: '10.95.2.1/24', ipv6: 'fd95:2::/64' });
  web = await docker.run('web', ['-p', `${PUBLISHED}:80`], ['/bin/httpd', '-f', '-p', '80', '-h', '/www']);
  before = await foreignRules();
});
afterAll(async () => {
  await docker?.stop();
  // Also when something else failed while it booted.
  await (await booted?.catch(() => undefined))?.powerOff();
  await topology.stop();
});

/** Every rule and chain of both families that is not ours, without counters, in order. */
async function foreignRules(): Promise<string> {
  const saved = await Promise.all([a.host.must(['iptables-save']), a.host.must(['ip6tables-save'])]);
  const tables = saved.map((text) => {
    const sections = text.split(/^\*/m).slice(1);
    return sections
      .map((section) =>
        section
          .split('\n')
          .filter((line) => !/^#|MESH/.test(line))
          .map((line) => line.replace(/\[\d+:\d+\]/, ''))
          .join('\n'),
      )
      .filter((section) => section.includes('DOCKER'));
  });
  return JSON.stringify(tables, undefined, 1);
}

/** A request out of a container; answers with whom the server saw, and the agent's line of it. */
async function call(
  container: Container,
  family: Family,
): Promise<{ readonly seen: string; readonly line: AccessLine }> {
  const known = (await agent.accessLog()).length;
  const url = `http://${at(b.host.address(family), PORT)}/`;
  const seen = await docker.exec(container, ['timeout', '5', 'wget', '-q', '-O', '-', url]);
  const address = await docker.address(container, family);
  const line = await waitFor(`the connection of ${container.name} is logged`, async () =>
    (await agent.accessLog())
      .slice(known)
      .find((one) => one.callerAddress?.startsWith(at(address, 0).slice(0, -1))),
  );
  return { seen: seen.trim(), line };
}

/** The container is named, and the mesh carried its request. */
async function expectNamed(container: Container): Promise<void> {
  for (const family of FAMILIES) {
    const { seen, line } = await call(container, family);
    expect(seen).toBe(`b ${b.host.address(family)}`);
    expect(line).toMatchObject({
      caller: `container:${container.id.slice(0, 12)}`,
      user: null,
      service: 'orders',
      path: 'tunnel',
      reason: 'done',
    });
  }
}

/** What docker does for its containers still works: the published port leads to `web`. */
async function expectPublished(): Promise<void> {
  for (const family of FAMILIES) {
    const url = `http://${at(a.host.address(family), PUBLISHED)}/`;
    expect(await b.host.must(['curl', '-gsS', '--max-time', '5', url]), family).toBe('container\n');
  }
}

describe('docker before, with and after the agent', () => {
  test('the agent starts beside it and touches none of its rules', async () => {
    await expectPublished();
    agent = await SystemdAgent.start(a, authority, {
      grants: { callAs: ['shop'] },
      catalogue,
      config: {
        capture: { bridges: ['docker0'], reassertInterval: '500ms' },
        caller: { timeout: '10s' }, // as long as it takes on a machine that is busy with other tests
      },
    });
    expect(await foreignRules()).toBe(before);
    await expectPublished();
  });

  test('a container that starts later is taken on the bridge, and named', async () => {
    shop = await docker.run('shop', [], ['/bin/sleep', '1000']);
    await expectNamed(shop);
    await expectNamed(web);
    const counted = `mesh_node_caller_connections_total{caller="container:${shop.id.slice(0, 12)}"} 2`;
    await waitFor('the metrics page counts it', async () => (await agent.metrics()).includes(counted));
  });

  test('docker is restarted: both go on, and containers that changed addresses are not mixed up', async () => {
    const was = await docker.address(shop, 'ipv4');
    await docker.restart();
    await docker.again(shop, web);
    expect(await docker.address(shop, 'ipv4')).not.toBe(was);
    expect(await docker.address(web, 'ipv4')).toBe(was);
    await expectNamed(shop);
    await expectNamed(web);
    await expectPublished();
  });

  test("a container's address that another one gets at once names the other one", async () => {
    const { line } = await call(shop, 'ipv4');
    await docker.remove(shop);
    const next = await docker.run('next', [], ['/bin/sleep', '1000']);
    shop = next;
    const later = await waitFor('the other one is named', async () => {
      const again = await call(next, 'ipv4');
      return again.line.caller === `container:${next.id.slice(0, 12)}` && again.line;
    });
    expect(later.callerAddress?.split(':')[0]).toBe(line.callerAddress?.split(':')[0]);
  });

  test('the agent is stopped: containers go direct, and the rules of docker are what they were', async () => {
    await docker.remove(shop);
    await docker.remove(web);
    web = await docker.run('web', ['-p', `${PUBLISHED}:80`], ['/bin/httpd', '-f', '-p', '80', '-h', '/www']);
    await agent.stop();
    expect(await foreignRules()).toBe(before);
    await expectPublished();
    const url = `http://${at(b.host.ipv4, PORT)}/`;
    expect((await docker.exec(web, ['timeout', '5', 'wget', '-q', '-O', '-', url])).trim()).toBe(
      `b ${a.host.ipv4}`,
    );
  });
});
