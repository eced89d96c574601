import { join } from 'node:path';
import type { ConfigInput } from '../../src/config/schema.ts';
import { settled } from './books.ts';
import { Authority, type CatalogueDocument, type Grants, MeshHost, Program, TUNNEL_PORT } from './mesh.ts';
import { at } from './site.ts';
import { type Host, type NetworkPlan, Topology } from './topology.ts';
import { trafficServer } from './traffic.ts';

/** A few hosts on one network: `a` calls, the others serve. */
export interface PairPlan {
  readonly servers: readonly string[];
  /** Services by name, with their port; each has instances on every server, on both families. */
  readonly services: Readonly<Record<string, number>>;
  /** Properties of services beside their instances, such as `mode: strict`. */
  readonly properties?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Addresses of the tunnels themselves. */
  readonly tunnels?: 'ipv4' | 'ipv6';
  readonly line?: NonNullable<NetworkPlan['line']>;
  readonly config?: ConfigInput;
  /** Hosts that call as `shop`; the others are servers. */
  readonly callers?: readonly string[];
  /** Instead of the usual certificate of a host. */
  readonly grants?: Readonly<Record<string, Grants>>;
}

const LAST: Readonly<Record<string, number>> = { a: 1, b: 2, d: 4, e: 5, f: 6 };
const CALLERS = ['a'];
const ZONE = 'dc1';

function namesOf({ callers, servers }: PairPlan): readonly string[] {
  return [...(callers ?? CALLERS), ...servers];
}

/** Agents on a few hosts of one network, with a traffic server for each service on each of the servers. */
export class Pair {
  readonly topology: Topology;
  readonly authority: Authority;
  readonly #plan: PairPlan;
  readonly #program: Program;
  readonly #mesh = new Map<string, MeshHost>();

  private constructor(topology: Topology, program: Program, authority: Authority, plan: PairPlan) {
    this.topology = topology;
    this.authority = authority;
    this.#program = program;
    this.#plan = plan;
  }

  /** Starts everything; `prepared` is told of each agent before it starts. */
  static async start(
    plan: PairPlan,
    prepared: (mesh: MeshHost, name: string, pair: Pair) => Promise<void> = async () => {},
  ): Promise<Pair> {
    const { line } = plan;
    const lan = { ipv4: '10.82.1', ipv6: 'fd82:1', router: false, ...(line === undefined ? {} : { line }) };
    const names = namesOf(plan);
    const topology = await Topology.create('mnlab', {
      networks: { lan },
      hosts: Object.fromEntries(names.map((name) => [name, { lan: LAST[name]! }])),
    });
    try {
      const program = await Program.prepare(topology);
      const authority = await Authority.create(join(topology.directory, 'ca'));
      const pair = new Pair(topology, program, authority, plan);
      await pair.#startAll(names, prepared);
      return pair;
    } catch (error) {
      await topology.stop();
      throw error;
    }
  }

  async #startAll(
    names: readonly string[],
    prepared: (mesh: MeshHost, name: string, pair: Pair) => Promise<void>,
  ): Promise<void> {
    const { services, grants, config, servers } = this.#plan;
    const ports = new Set(Object.values(services));
    await Promise.all(
      servers.flatMap((name) => [...ports].map((port) => trafficServer(this.host(name), port))),
    );
    await Promise.all(
      names.map(async (name) => {
        const calls = (this.#plan.callers ?? CALLERS).includes(name);
        const usual = calls ? { callAs: ['shop'] } : { host: Object.keys(services) };
        const mesh = await MeshHost.prepare(this.host(name), this.#program, this.authority, {
          zone: ZONE,
          grants: grants?.[name] ?? usual,
          config: { ...config, ...(calls ? { node: { callAs: 'shop' } } : {}) },
        });
        this.#mesh.set(name, mesh);
        await mesh.writeCatalogue('services.yaml', this.catalogue());
        await prepared(mesh, name, this);
        await mesh.start();
      }),
    );
  }

  /** What the registry of every host says; with `servers` as if only these had instances. */
  catalogue(servers: readonly string[] = this.#plan.servers): CatalogueDocument {
    const { services, properties } = this.#plan;
    const tunnels = this.#plan.tunnels ?? 'ipv4';
    const families = ['ipv4', 'ipv6'] as const;
    return {
      services: Object.entries(services).map(([name, port]) => ({
        name,
        protocol: 'tcp',
        ...properties?.[name],
        instances: servers.flatMap((node) =>
          families.map((family) => ({
            address: at(this.host(node).address(family), port),
            node,
            zone: ZONE,
          })),
        ),
      })),
      nodes: namesOf(this.#plan).map((name) => ({
        name,
        zone: ZONE,
        tunnel: at(this.host(name).address(tunnels), TUNNEL_PORT),
      })),
    };
  }

  /** An authority that nobody believes. */
  stranger(): Promise<Authority> {
    return Authority.create(join(this.topology.directory, 'stranger'));
  }

  host(name: string): Host {
    return this.topology.host(name);
  }

  mesh(name: string): MeshHost {
    const found = this.#mesh.get(name);
    if (found === undefined) throw new Error(`mesh-node does not run on ${name}`);
    return found;
  }

  /**
   * Every agent that still runs has written all down, ends as it should and leaves nothing; then the hosts go. What a
   * killed process had not told yet is lost: the books of such an agent cannot agree.
   */
  async stop(killed: readonly string[] = []): Promise<void> {
    try {
      const alive = [...this.#mesh.values()].filter((mesh) => mesh.running.running);
      await settled(alive, Object.values(this.#plan.services), killed);
    } finally {
      await this.topology.stop();
    }
  }
}
