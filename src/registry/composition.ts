import { setImmediate as turn } from 'node:timers/promises';
import { endpointKey } from '../model/address.ts';
import type { Instance, InstanceId, MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { canonicalService } from './canonical.ts';
import type { CatalogueDocument } from './document.ts';
import { registryLimits } from './limits.ts';
import type { SourceContext, SourceUpdate } from './source.ts';

/** Instances (each service and node counts as one more) that are worked on between two turns of the event loop. */
const SLICE_WEIGHT = 1000;

type Written = CatalogueDocument['services'][number];

/** All files as one. */
export interface Composed {
  readonly services: ReadonlyMap<ServiceName, Service>;
  readonly nodes: ReadonlyMap<NodeName, MeshNode>;
  /** Names that several files claim. */
  readonly problems: readonly string[];
  /** More than one source may hold: what is taken then depends on the whole. */
  readonly beyond: boolean;
}

export const nothingComposed: Composed = {
  services: new Map(),
  nodes: new Map(),
  problems: [],
  beyond: false,
};

/**
 * Puts files together: the first file, by name, that names a service or node wins; zones come from nodes. What did not
 * change stays the same object, and the work is cut into slices.
 */
export class Composer {
  readonly #context: SourceContext;
  /** What was made of each service of a document, valid for the zones below. */
  #made = new WeakMap<Written, Service>();
  #nodes: ReadonlyMap<NodeName, MeshNode> = new Map();

  constructor(context: SourceContext) {
    this.#context = context;
  }

  /** The documents by the names of their files, in the order of these. */
  async compose(documents: ReadonlyMap<string, CatalogueDocument>): Promise<Composed> {
    const problems: string[] = [];
    const slice = new Slice();
    const nodes = new Map<NodeName, MeshNode>();
    const from = new Map<string, string>();
    for (const [file, document] of documents) {
      for (const node of document.nodes) {
        const first = from.get(node.name);
        if (first !== undefined)
          problems.push(`${file}: node ${node.name} is also in ${first}, which is used`);
        else {
          from.set(node.name, file);
          nodes.set(node.name, node);
        }
        await slice.add(1);
      }
    }
    if (!sameZones(nodes, this.#nodes)) this.#made = new WeakMap();
    this.#nodes = nodes;

    from.clear();
    const services = new Map<ServiceName, Service>();
    let instances = 0;
    for (const [file, document] of documents) {
      for (const written of document.services) {
        const { name } = written;
        const first = from.get(name);
        if (first !== undefined) {
          problems.push(`${file}: service ${name} is also in ${first}, which is used`);
          continue;
        }
        from.set(name, file);
        instances += written.instances.length;
        let service = this.#made.get(written);
        if (service === undefined) {
          service = this.#make(written);
          this.#made.set(written, service);
          await slice.add(1 + service.instances.length);
        } else await slice.add(1);
        services.set(name, service);
      }
    }
    const { services: mostServices, nodes: mostNodes, instances: mostInstances } = registryLimits;
    const beyond = services.size > mostServices || nodes.size > mostNodes || instances > mostInstances;
    return { services, nodes, problems, beyond };
  }

  #make({ ports, source, ...written }: Written): Service {
    return canonicalService({
      ...written,
      ...(ports === undefined ? {} : { ports }),
      ...(source === undefined ? {} : { source }),
      balance: written.balance ?? this.#context.balance,
      instances: written.instances.map((instance): Instance => {
        const { id, node, zone, ...rest } = instance;
        return {
          ...rest,
          id: id ?? (endpointKey(instance.address) as string as InstanceId),
          ...(node === undefined ? {} : { node }),
          zone: zone ?? (node === undefined ? undefined : this.#nodes.get(node)?.zone) ?? this.#context.zone,
        };
      }),
    });
  }
}

/**
 * The way from one composition to the next, as updates of bounded weight with a turn of the event loop after each:
 * nodes first, so that no instance is known before its node.
 */
export async function* updatesBetween(before: Composed, after: Composed): AsyncGenerator<SourceUpdate> {
  let update = emptyChange();
  let weight = 0;
  const slice = new Slice();
  const full = (more: number) => {
    weight += more;
    return weight >= SLICE_WEIGHT;
  };
  const cut = () => {
    const done = update;
    update = emptyChange();
    weight = 0;
    return done;
  };
  for (const [name, node] of after.nodes) {
    await slice.add(1);
    if (before.nodes.get(name) === node) continue;
    update.nodes.push(node);
    if (full(1)) yield cut();
  }
  for (const [name, service] of after.services) {
    await slice.add(1);
    if (before.services.get(name) === service) continue;
    update.services.push(service);
    if (full(1 + service.instances.length)) {
      yield cut();
      await turn();
    }
  }
  for (const [name, service] of before.services) {
    await slice.add(1);
    if (after.services.has(name)) continue;
    update.removedServices.push(name);
    if (full(1 + service.instances.length)) {
      yield cut();
      await turn();
    }
  }
  for (const name of before.nodes.keys()) {
    await slice.add(1);
    if (after.nodes.has(name)) continue;
    update.removedNodes.push(name);
    if (full(1)) yield cut();
  }
  if (weight > 0) yield update;
}

function emptyChange() {
  return {
    kind: 'change' as const,
    services: [] as Service[],
    removedServices: [] as ServiceName[],
    nodes: [] as MeshNode[],
    removedNodes: [] as NodeName[],
  };
}

/** Counts work, and gives the event loop a turn when enough of it was done. */
class Slice {
  #weight = 0;

  /** Undefined, and no turn, most of the time. */
  add(weight: number): Promise<void> | undefined {
    this.#weight += weight;
    if (this.#weight < SLICE_WEIGHT) return undefined;
    this.#weight = 0;
    return turn();
  }
}

function sameZones(a: ReadonlyMap<NodeName, MeshNode>, b: ReadonlyMap<NodeName, MeshNode>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, node] of a) if (b.get(name)?.zone !== node.zone) return false;
  return true;
}
