import { mkdir, rm } from 'node:fs/promises';
import type { MeshHost } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { iperf3, mariadb, nginx, postgres, redis } from '../support/servers.ts';
import { at, catalogueOf, Site } from '../support/site.ts';
import { type Host, Topology } from '../support/topology.ts';
import { twoZones } from '../support/zones.ts';
import { Checks, equal } from './checks.ts';
import { callers, killed, names, type Scene, strict } from './good-citizen.ts';
import { policies, SHOP, shopDocument } from './policies.ts';

/*
 * The demonstration that scripts/demo runs: three hosts in two data centres, each a network namespace with iptables of
 * its own; unchanged programs against real servers. Every line is a check of what really happened.
 */

const PORTS = {
  web: 8080,
  vault: 8443,
  exempt: 9100,
  redis: 6379,
  postgres: 5432,
  mariadb: 3306,
  iperf: 5201,
} as const;
const PLAN = {
  services: PORTS,
  properties: { vault: { mode: 'strict' } },
  config: { capture: { deadAfter: '1s' } },
  grants: { b: { host: [...Object.keys(PORTS), SHOP] } },
} as const;
/** A service without any instance, at an address that nobody has. */
const GHOST = { ip: '192.0.2.77', port: 9000 } as const;

const checks = new Checks();

const GHOST_DOCUMENT = {
  services: [{ name: 'ghost', addresses: [at(GHOST.ip, GHOST.port)], ports: [GHOST.port], instances: [] }],
};

class Demo {
  readonly #topology: Topology;
  #site: Site | undefined;

  constructor(topology: Topology) {
    this.#topology = topology;
  }

  #host(name: string): Host {
    return this.#topology.host(name);
  }

  #node(name: string): MeshHost {
    if (this.#site === undefined) throw new Error('there is no authority');
    return this.#site.mesh(name);
  }

  async #curl(to: string, port: number): Promise<string> {
    return (
      await this.#host('a').must(['curl', '-gsS', '--max-time', '10', `http://${at(to, port)}/`])
    ).trim();
  }

  async run(): Promise<void> {
    await this.#servers();
    await this.#start();
    for (const name of ['b', 'c']) await this.#applications(name);
    const scene = this.#scene();
    await names(scene);
    await callers(scene);
    await strict(scene);
    await policies({
      ...{ checks, a: scene.a, b: scene.b },
      ...{ caller: this.#node('a'), callee: this.#node('b') },
    });
    await this.#coldBoot();
    await this.#zoneAgentKilled();
    await this.#allowList();
    await killed(scene);
    await this.#stopped();
  }

  #scene(): Scene {
    const { web, vault } = PORTS;
    return {
      checks,
      a: this.#host('a'),
      b: this.#host('b'),
      outsider: this.#host('gw1b'),
      agent: this.#node('a'),
      ports: { web, vault, ghost: GHOST.port },
    };
  }

  async #servers(): Promise<void> {
    checks.heading(
      'Before: real servers on hosts b (data centre dc1) and c (dc2), applications on host a (dc1)',
    );
    await checks.check('nginx, Redis, PostgreSQL, MariaDB and iperf3 answer on b and c', async () => {
      await Promise.all(
        ['b', 'c'].flatMap((name) => {
          const host = this.#host(name);
          return [
            nginx(host, PORTS.web, name),
            nginx(host, PORTS.vault, name),
            nginx(host, PORTS.exempt, name),
            redis(host, PORTS.redis),
            postgres(host, PORTS.postgres),
            mariadb(host, PORTS.mariadb),
            iperf3(host, PORTS.iperf),
          ];
        }),
      );
      return undefined;
    });
    await checks.check('a reaches b, and b sees the address of a', async () => {
      equal(await this.#curl(this.#host('b').ipv4, PORTS.web), `b ${this.#host('a').ipv4}`);
      return undefined;
    });
    await checks.check('a cannot reach c: between the data centres only zone-agents stand', async () => {
      const { code } = await this.#host('a').exec([
        'curl',
        '-sS',
        '--max-time',
        '3',
        `http://${this.#host('c').ipv4}:8080/`,
      ]);
      if (code === 0) throw new Error('c answered');
      return `curl ended with ${code}`;
    });
  }

  async #start(): Promise<void> {
    checks.heading('mesh-node on every host, zone-agents gw1a gw1b gw2a gw2b between the data centres');
    await checks.check('mesh-node ca init makes an authority', async () => {
      this.#site = await Site.create(this.#topology);
      return undefined;
    });
    await checks.check(
      'mesh-node run on a, b, c and mesh-node zone-agent on the gateways are ready',
      async () => {
        const started = performance.now();
        await this.#site?.start(PLAN, async (mesh) => {
          if (mesh.host.name === 'a') {
            await this.#topology.mount(mesh.catalogueDirectory);
            await mesh.writeCatalogue('ghost.yaml', GHOST_DOCUMENT);
          }
          await mesh.writeCatalogue('shop.yaml', shopDocument(this.#host('b').ipv4));
        });
        return `${((performance.now() - started) / 1000).toFixed(1)} s`;
      },
    );
  }

  /** The path that a's agent wrote down for its newest connection to an address. */
  async #tookPath(destination: string, path: string): Promise<void> {
    const line = await this.#node('a').logged(
      `a connection to ${destination}`,
      (one) => one.destination === destination,
    );
    equal(`${line.path}, ${line.reason}`, `${path}, done`);
  }

  async #applications(name: string): Promise<void> {
    const host = this.#host(name);
    const path = name === 'b' ? 'tunnel' : 'relay';
    checks.heading(
      name === 'b'
        ? 'In one data centre: unchanged programs on a, through the tunnel between the agents of a and b'
        : 'To the other data centre: the same programs, relayed by two zone-agents that see only ciphertext',
    );
    const a = this.#host('a');
    for (const family of ['ipv4', 'ipv6'] as const) {
      const ip = host.address(family);
      await checks.check(`curl http://${at(ip, PORTS.web)}/`, async () => {
        // The server sees its own host: the bytes came out of that host's agent, not over the network.
        equal(await this.#curl(ip, PORTS.web), `${name} ${ip}`);
        await this.#tookPath(at(ip, PORTS.web), path);
        return `path: ${path}`;
      });
    }
    await checks.check(`redis-cli -h ${host.ipv4}`, async () => {
      const cli = ['redis-cli', '-h', host.ipv4];
      equal((await a.must([...cli, 'set', 'greeting', `hello ${name}`])).trim(), 'OK');
      equal((await a.must([...cli, 'get', 'greeting'])).trim(), `hello ${name}`);
      await this.#tookPath(at(host.ipv4, PORTS.redis), path);
      return `path: ${path}`;
    });
    await checks.check(`psql -h ${host.ipv6}`, async () => {
      const question = 'select sum(n), inet_client_addr() from generate_series(1, 100000) n group by 2';
      const answer = await a.must(['psql', '-h', host.ipv6, '-U', 'postgres', '-Atc', question]);
      equal(answer.trim(), `5000050000|${host.ipv6}`);
      await this.#tookPath(at(host.ipv6, PORTS.postgres), path);
      return `path: ${path}`;
    });
    await checks.check(`mariadb -h ${host.ipv4}: a protocol in which the server speaks first`, async () => {
      equal(
        (
          await a.must(['mariadb', '--no-defaults', '-h', host.ipv4, '-u', 'root', '-Ne', 'select 6 * 7'])
        ).trim(),
        '42',
      );
      await this.#tookPath(at(host.ipv4, PORTS.mariadb), path);
      return `path: ${path}`;
    });
    for (const [direction, flags] of [
      ['there', []],
      ['back', ['--reverse']],
    ] as const) {
      await checks.check(`iperf3 -c ${host.ipv4}: 128 MiB ${direction}`, async () => {
        const report = await a.must(['iperf3', '-c', host.ipv4, '-n', '128M', '--json', ...flags], {
          timeoutMs: 30_000,
        });
        const { end, error } = JSON.parse(report) as {
          error?: string;
          end: { sum_received: { bytes: number; bits_per_second: number } };
        };
        if (error !== undefined) throw new Error(error);
        if (end.sum_received.bytes < 120 * 1024 * 1024)
          throw new Error(`only ${end.sum_received.bytes} bytes arrived`);
        await this.#tookPath(at(host.ipv4, PORTS.iperf), path);
        return `${(end.sum_received.bits_per_second / 1e9).toFixed(1)} Gbit/s, path: ${path}`;
      });
    }
  }

  async #coldBoot(): Promise<void> {
    checks.heading('The registry is gone, and the agent of a starts cold');
    const mesh = this.#node('a');
    await checks.check('the registry directory is unmounted and removed; connections go on', async () => {
      await this.#topology.unmount(mesh.catalogueDirectory);
      await rm(mesh.catalogueDirectory, { recursive: true });
      await waitFor('the agent notices', async () => {
        const answer = (await mesh.api('/v1/registries')) as { registries: { state: string }[] };
        return answer.registries.every((registry) => registry.state === 'unreachable');
      });
      equal(await this.#curl(this.#host('b').ipv4, PORTS.web), `b ${this.#host('b').ipv4}`);
      return undefined;
    });
    await checks.check('the agent is stopped and started with nothing but its disk', async () => {
      await mesh.stop();
      await mesh.start();
      const { snapshot } = await mesh.status();
      return `${snapshot.services} services from the file cache`;
    });
    for (const name of ['b', 'c']) {
      await checks.check(`curl reaches ${name}, by the mesh`, async () => {
        const ip = this.#host(name).ipv4;
        equal(await this.#curl(ip, PORTS.web), `${name} ${ip}`);
        await this.#tookPath(at(ip, PORTS.web), name === 'b' ? 'tunnel' : 'relay');
        return undefined;
      });
    }
    await checks.check('the registry is back and is believed again', async () => {
      await mkdir(mesh.catalogueDirectory, { recursive: true });
      await mesh.writeCatalogue('services.yaml', catalogueOf(this.#topology, PLAN));
      await mesh.writeCatalogue('ghost.yaml', GHOST_DOCUMENT);
      await waitFor('the agent notices', async () => {
        const answer = (await mesh.api('/v1/registries')) as { registries: { state: string }[] };
        return answer.registries.every((registry) => registry.state === 'synced');
      });
      return undefined;
    });
  }

  async #zoneAgentKilled(): Promise<void> {
    checks.heading('Zone-agents are killed (SIGKILL, supervisor and workers)');
    for (const name of ['gw1a', 'gw2a']) {
      await checks.check(`${name} is killed; ten connections to c in a row`, async () => {
        await this.#host(name).stop();
        const started = performance.now();
        for (let i = 0; i < 10; i++) {
          equal(await this.#curl(this.#host('c').ipv4, PORTS.web), `c ${this.#host('c').ipv4}`);
        }
        return `${(performance.now() - started).toFixed(0)} ms for all`;
      });
    }
  }

  async #allowList(): Promise<void> {
    checks.heading('The allow-list: a destination that the agent must never touch');
    const mesh = this.#node('a');
    const b = this.#host('b');
    const destination = at(b.ipv4, PORTS.exempt);
    await checks.check(`before, ${destination} goes through the mesh like any service`, async () => {
      equal(await this.#curl(b.ipv4, PORTS.exempt), `b ${b.ipv4}`);
      await this.#tookPath(destination, 'tunnel');
      return undefined;
    });
    await checks.check(`${destination} is written into the allow-list of the running agent`, async () => {
      await mesh.writeAllowList([`${destination}  # never touched`]);
      await waitFor('the rule stands', async () =>
        (await this.#host('a').must(['iptables-save', '-t', 'nat'])).includes(
          `-d ${b.ipv4}/32 -p tcp -m tcp --dport ${PORTS.exempt} -j RETURN`,
        ),
      );
      return undefined;
    });
    await checks.check(
      'now the server sees the address of a itself; the agent has no trace of it',
      async () => {
        const connections = async () => [
          (await mesh.accessLog()).length,
          await mesh.metric('mesh_node_connections_total'),
        ];
        const before = await connections();
        for (let i = 0; i < 5; i++)
          equal(await this.#curl(b.ipv4, PORTS.exempt), `b ${this.#host('a').ipv4}`);
        // One connection that is seen, after those that must not be: when it is written down, they would have been.
        equal(await this.#curl(b.ipv4, PORTS.web), `b ${b.ipv4}`);
        await waitFor('the connection that is seen is written down', async () => {
          const [lines, counted] = await connections();
          return lines === before[0]! + 1 && counted === before[1]! + 1;
        });
        return 'access log and metrics: 0 of 5';
      },
    );
  }

  async #stopped(): Promise<void> {
    checks.heading('The agent of a is stopped');
    await checks.check('applications go on, directly', async () => {
      const code = await this.#node('a').stop();
      equal(`${code}`, '0');
      const { b, a } = { b: this.#host('b'), a: this.#host('a') };
      equal(await this.#curl(b.ipv4, PORTS.web), `b ${a.ipv4}`);
      equal((await a.must(['redis-cli', '-h', b.ipv4, 'get', 'greeting'])).trim(), 'hello b');
      return undefined;
    });
  }
}

// Whoever stops reading must not keep the hosts from being removed.
process.stdout.on('error', () => {});
const began = performance.now();
const topology = await Topology.create('mndemo', twoZones);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void topology.stop().finally(() => process.exit(1)));
}
try {
  await new Demo(topology).run();
} finally {
  await topology.stop();
}
const seconds = ((performance.now() - began) / 1000).toFixed(0);
console.log(
  `\n${checks.held} checks held, ${checks.broken} did not (${seconds} s); everything that was made is removed`,
);
process.exitCode = checks.broken === 0 && checks.held > 0 ? 0 : 1;
