import type {
  BalancePolicy,
  Instance,
  MeshNode,
  NodeName,
  Protocol,
  Service,
  ServiceName,
} from '../model/service.ts';
import { serviceDefaults } from './defaults.ts';
import { registryLimits } from './limits.ts';
import type { SerfMember } from './serf-rpc.ts';
import { type Contribution, contributionOf } from './serf-tags.ts';
import type { SourceUpdate } from './source.ts';

/**
 * The members of a Serf cluster as services and nodes, without I/O. An event costs what its members name, not the
 * whole cluster. What several members say differently is settled by the order of their names, the same everywhere.
 */
export class SerfMembers {
  readonly #zone: string;
  readonly #balance: BalancePolicy;
  readonly #contributions = new Map<string, Contribution>();
  readonly #byService = new Map<ServiceName, Set<string>>();
  readonly #byNode = new Map<NodeName, Set<string>>();
  readonly #touchedServices = new Set<ServiceName>();
  readonly #touchedNodes = new Set<NodeName>();
  /** Disagreements between members, by what they are about. */
  readonly #disputes = new Map<string, string>();
  #refused = 0;

  constructor(defaults: { readonly zone: string; readonly balance: BalancePolicy }) {
    this.#zone = defaults.zone;
    this.#balance = defaults.balance;
  }

  /** All that is wrong in the tags, in a stable order. */
  get problems(): string[] {
    const problems: string[] = [];
    for (const name of [...this.#contributions.keys()].sort())
      problems.push(...this.#contributions.get(name)!.problems);
    problems.push(...this.#disputes.values());
    if (this.#refused > 0)
      problems.push(`${this.#refused} members beyond ${registryLimits.nodes} are left out`);
    return problems;
  }

  /** True when something is known of a member that this list does not mention at all. */
  knowsOthersThan(members: readonly SerfMember[]): boolean {
    const named = new Set(members.map((member) => member.name));
    for (const name of this.#contributions.keys()) if (!named.has(name)) return true;
    return false;
  }

  /** The whole list of members is this; `complete` as in the update. */
  replace(members: readonly SerfMember[], complete: boolean): SourceUpdate {
    this.#refused = 0;
    const named = new Set(members.map((member) => member.name));
    for (const name of [...this.#contributions.keys()]) if (!named.has(name)) this.remove(name);
    for (const member of members) this.put(member);
    this.changes();
    const services = Array.from(this.#byService.keys(), (name) => this.#service(name)!);
    const nodes = Array.from(this.#byNode.keys(), (name) => this.#node(name)!);
    return { kind: 'full', services, nodes, complete };
  }

  /** A member is there, or its tags are others. */
  put(member: SerfMember): void {
    this.remove(member.name);
    const contribution = contributionOf(member, this.#zone);
    const { services, node, problems } = contribution;
    if (services.size === 0 && node === undefined && problems.length === 0) return;
    if (this.#contributions.size >= registryLimits.nodes) {
      this.#refused++;
      return;
    }
    this.#contributions.set(member.name, contribution);
    for (const name of services.keys()) {
      addTo(this.#byService, name, member.name);
      this.#touchedServices.add(name);
    }
    if (node !== undefined) {
      addTo(this.#byNode, node.name, member.name);
      this.#touchedNodes.add(node.name);
    }
  }

  /** A member is gone. */
  remove(member: string): void {
    const contribution = this.#contributions.get(member);
    if (contribution === undefined) return;
    this.#contributions.delete(member);
    for (const name of contribution.services.keys()) {
      dropFrom(this.#byService, name, member);
      this.#touchedServices.add(name);
    }
    if (contribution.node !== undefined) {
      dropFrom(this.#byNode, contribution.node.name, member);
      this.#touchedNodes.add(contribution.node.name);
    }
  }

  /** What `put` and `remove` changed since the last call; undefined when nothing. */
  changes(): SourceUpdate | undefined {
    if (this.#touchedServices.size === 0 && this.#touchedNodes.size === 0) return undefined;
    const services: Service[] = [];
    const removedServices: ServiceName[] = [];
    for (const name of this.#touchedServices) {
      const service = this.#service(name);
      if (service === undefined) removedServices.push(name);
      else services.push(service);
    }
    const nodes: MeshNode[] = [];
    const removedNodes: NodeName[] = [];
    for (const name of this.#touchedNodes) {
      const node = this.#node(name);
      if (node === undefined) removedNodes.push(name);
      else nodes.push(node);
    }
    this.#touchedServices.clear();
    this.#touchedNodes.clear();
    return { kind: 'change', services, removedServices, nodes, removedNodes };
  }

  #service(name: ServiceName): Service | undefined {
    const key = `service ${name}`;
    this.#disputes.delete(key);
    const members = this.#byService.get(name);
    if (members === undefined) return undefined;
    const instances = new Map<string, Instance>();
    let protocol: Protocol | undefined;
    for (const member of [...members].sort()) {
      const said = this.#contributions.get(member)!.services.get(name)!;
      if (said.protocol !== undefined && protocol !== undefined && said.protocol !== protocol) {
        this.#disputes.set(key, `service ${name}: members disagree on its protocol; ${protocol} is used`);
      }
      protocol ??= said.protocol;
      if (instances.has(said.instance.id)) {
        this.#disputes.set(
          key,
          `service ${name}: several members claim ${said.instance.id}; the first is used`,
        );
      } else instances.set(said.instance.id, said.instance);
    }
    return {
      name,
      ...serviceDefaults,
      ...(protocol === undefined ? {} : { protocol }),
      balance: this.#balance,
      hosts: [],
      addresses: [],
      instances: [...instances.values()],
    };
  }

  #node(name: NodeName): MeshNode | undefined {
    const key = `node ${name}`;
    this.#disputes.delete(key);
    const members = this.#byNode.get(name);
    if (members === undefined) return undefined;
    const [first] = [...members].sort();
    if (members.size > 1)
      this.#disputes.set(key, `node ${name}: several members claim the name; the first is used`);
    return this.#contributions.get(first!)!.node;
  }
}

function addTo<K>(index: Map<K, Set<string>>, key: K, member: string): void {
  const members = index.get(key);
  if (members === undefined) index.set(key, new Set([member]));
  else members.add(member);
}

function dropFrom<K>(index: Map<K, Set<string>>, key: K, member: string): void {
  const members = index.get(key);
  members?.delete(member);
  if (members?.size === 0) index.delete(key);
}
