import { join } from 'node:path';
import type { ConfigInput } from '../../src/config/schema.ts';
import { Authority, type CatalogueDocument, type Grants, MeshHost, Program, TUNNEL_PORT } from './mesh.ts';
import type { Host, Topology } from './topology.ts';
import { twoZones } from './zones.ts';

/** What a site of two zones offers, and how its agents differ from the usual ones. */
export interface SitePlan {
  /** Services by name, with their port; each has instances on b and c, on both families. */
  readonly services: Readonly<Record<string, number>>;
  /** Properties of services beside their instances, such as `mode: strict`. */
  readonly properties?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Addresses of the tunnels themselves. */
  readonly tunnels?: 'ipv4' | 'ipv6';
  /** Agents that run; by default on every host. */
  readonly agents?: readonly string[];
  readonly config?: ConfigInput;
  /** Sections of one agent, in the place of those of `config`. */
  readonly configs?: Readonly<Record<string, ConfigInput>>;
  /** Instead of the usual certificate of a host. */
  readonly grants?: Readonly<Record<string, Grants>>;
}

/** `address:port`, with brackets for IPv6. */
export function at(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function zoneOf(host: string): 'dc1' | 'dc2' {
  return host === 'c' || host.startsWith('gw2') ? 'dc2' : 'dc1';
}

/** What the registry of every host says: where the services run, and where each host's tunnel listens. */
export function catalogueOf(topology: Topology, plan: SitePlan): CatalogueDocument {
  const instances = (port: number) =>
    ['b', 'c'].flatMap((node) =>
      (['ipv4', 'ipv6'] as const).map((family) => ({
        address: at(topology.host(node).address(family), port),
        node,
        zone: zoneOf(node),
      })),
    );
  return {
    services: Object.entries(plan.services).map(([name, port]) => ({
      name,
      protocol: 'tcp',
      ...plan.properties?.[name],
      instances: instances(port),
    })),
    nodes: Object.keys(twoZones.hosts).map((name) => ({
      name,
      zone: zoneOf(name),
      tunnel: at(topology.host(name).address(plan.tunnels ?? 'ipv4'), TUNNEL_PORT),
    })),
  };
}

/** mesh-node on the hosts of {@link twoZones}: agents on a, b, c, zone-agents on the gateways; a calls as `shop`. */
export class Site {
  readonly topology: Topology;
  readonly program: Program;
  readonly authority: Authority;
  readonly #mesh = new Map<string, MeshHost>();

  private constructor(topology: Topology, program: Program, authority: Authority) {
    this.topology = topology;
    this.program = program;
    this.authority = authority;
  }

  /** Makes the authority; nothing runs yet. */
  static async create(topology: Topology): Promise<Site> {
    const program = await Program.prepare(topology);
    return new Site(topology, program, await Authority.create(join(topology.directory, 'ca')));
  }

  /** Starts every agent; `prepared` is told before one starts. */
  async start(plan: SitePlan, prepared: (mesh: MeshHost) => Promise<void> = async () => {}): Promise<void> {
    const document = catalogueOf(this.topology, plan);
    await Promise.all(
      (plan.agents ?? Object.keys(twoZones.hosts)).map(async (name) => {
        const mesh = await MeshHost.prepare(this.host(name), this.program, this.authority, {
          zone: zoneOf(name),
          role: name.startsWith('gw') ? 'zone-agent' : 'node',
          grants: plan.grants?.[name] ?? usualGrants(name, Object.keys(plan.services)),
          config: {
            ...plan.config,
            ...plan.configs?.[name],
            ...(name === 'a' ? { node: { callAs: 'shop' } } : {}),
            zones: [this.#zone(name, plan.tunnels ?? 'ipv4')],
          },
        });
        await prepared(mesh);
        await mesh.writeCatalogue('services.yaml', document);
        this.#mesh.set(name, mesh);
        await mesh.start();
      }),
    );
  }

  host(name: string): Host {
    return this.topology.host(name);
  }

  mesh(name: string): MeshHost {
    const found = this.#mesh.get(name);
    if (found === undefined) throw new Error(`mesh-node does not run on ${name}`);
    return found;
  }

  /** A host goes through a zone-agent of its own zone, and that one through one of the other zone. */
  #zone(name: string, family: 'ipv4' | 'ipv6') {
    const zone = zoneOf(name);
    const [near, far] = zone === 'dc1' ? ['gw1', 'gw2'] : ['gw2', 'gw1'];
    const [through, network] = name.startsWith('gw') ? [far, 'ingress'] : [near, zone];
    return {
      name: zone === 'dc1' ? 'dc2' : 'dc1',
      gateways: ['a', 'b'].map((letter) => ({
        node: through + letter,
        address: at(this.host(through + letter).address(family, network), TUNNEL_PORT),
      })),
    };
  }
}

function usualGrants(name: string, services: readonly string[]): Grants {
  if (name.startsWith('gw')) return { relay: true };
  return name === 'a' ? { callAs: ['shop'] } : { host: services };
}
