import { type Endpoint, endpointKey, type Ip } from '../model/address.ts';
import type { Service, ServiceName } from '../model/service.ts';
import { type BalancePolicy, type Instance, type InstanceId, parseServiceName } from '../model/service.ts';
import { DEFAULT_WEIGHT, serviceDefaults } from './defaults.ts';
import { registryLimits } from './limits.ts';
import { MemberError, parseMember, type ServersetMember } from './serverset-member.ts';
import type { SourceUpdate } from './source.ts';

/** Paths below one another; deeper ones are not looked at. */
const MAX_DEPTH = 16;
/** Paths that are not members. */
const MAX_PATHS = 2 * registryLimits.services;
/** Characters of one path. */
const MAX_PATH = 1024;
const MEMBER = /^member_[0-9A-Za-z_.-]{1,64}$/;

/** What a path is followed for: every service below it, or services of its own. */
export type ServersetRoots =
  | { readonly kind: 'tree'; readonly path: string; readonly names: 'last' | 'path' }
  | { readonly kind: 'services'; readonly services: readonly NamedServerset[] };

/** A service that the configuration names. */
export interface NamedServerset {
  readonly name: ServiceName;
  readonly path: string;
  /** One of the members' additional endpoints; '' for their main one. */
  readonly endpoint: string;
}

interface ServersetTreeOptions {
  readonly roots: ServersetRoots;
  readonly zone: string;
  readonly balance: BalancePolicy;
  /** Address of a host that a member names; undefined while it is not known. */
  ipOf(host: string): Ip | undefined;
}

interface Directory {
  readonly path: string;
  readonly below: Set<string>;
  /** By the member's name; without `member` before it was read, and when it cannot be. */
  readonly members: Map<string, Said>;
  /** Members that could be read. Where there is none is no service: anything may lie in a tree. */
  readable: number;
}

interface Said {
  readonly member?: ServersetMember;
  readonly problems: readonly string[];
}

/** What a list of children says is to be looked at. */
export interface Children {
  /** Paths that may hold services. */
  readonly paths: readonly { readonly path: string; readonly isNew: boolean }[];
  readonly members: readonly { readonly path: string; readonly isNew: boolean }[];
}

/** A tree of serversets as services, without I/O. What it does not know of, such as answers that come late, it ignores. */
export class ServersetTree {
  readonly #options: ServersetTreeOptions;
  readonly #wanted: ReadonlySet<string>;
  /** Where to begin. */
  readonly roots: readonly string[];
  readonly #directories = new Map<string, Directory>();
  /** Which paths say something about a service. */
  readonly #claims = new Map<ServiceName, Set<string>>();
  readonly #touched = new Set<ServiceName>();
  readonly #disputes = new Map<ServiceName, string>();
  /** Paths that the server does not let us read, and why; what was known of them stays. */
  readonly #unreadable = new Map<string, string>();
  /** Roots that are not there. */
  readonly #missing = new Set<string>();
  #newHosts = new Set<string>();
  #members = 0;
  #paths = 0;
  #refused = 0;

  constructor(options: ServersetTreeOptions) {
    this.#options = options;
    const { roots } = options;
    const tree = roots.kind === 'tree';
    this.#wanted = new Set(tree ? [''] : roots.services.map(({ endpoint }) => endpoint));
    this.roots = tree ? [roots.path] : [...new Set(roots.services.map(({ path }) => path))];
  }

  /** False while something cannot be read: then there is more than is known. */
  get complete(): boolean {
    return this.#unreadable.size === 0;
  }

  /** All that is wrong, in a stable order. */
  get problems(): string[] {
    const problems = Array.from(this.#missing, (path) => `${path}: there is no such path`);
    for (const [path, why] of this.#unreadable) problems.push(`${path}: ${why}`);
    for (const path of [...this.#directories.keys()].sort()) {
      const { members } = this.#directories.get(path)!;
      if (members.size > 0 && this.#bindings(path).length === 0) {
        problems.push(`${path}: its name is no service name; expected lower-case letters, digits, - and .`);
      }
      for (const [name, said] of members) {
        for (const text of said.problems) problems.push(`${path}/${name}: ${text}`);
      }
    }
    problems.push(...this.#disputes.values());
    if (this.#refused > 0) problems.push(`${this.#refused} paths beyond a bound are left out`);
    // Paths are the words of strangers: nothing in them may steer a terminal.
    return problems.map((text) => text.replaceAll(/\p{Cc}/gu, '?'));
  }

  /** Hosts that members name. */
  get hosts(): Set<string> {
    const hosts = new Set<string>();
    for (const { members } of this.#directories.values()) {
      for (const { member } of members.values()) {
        for (const { host } of member?.endpoints.values() ?? []) hosts.add(host);
      }
    }
    return hosts;
  }

  /** Hosts that members named since the last call. */
  takeNewHosts(): Set<string> {
    const hosts = this.#newHosts;
    this.#newHosts = new Set();
    return hosts;
  }

  /** True for a path that is followed and may hold members. */
  knows(path: string): boolean {
    return this.roots.includes(path) || this.#directories.has(path);
  }

  knowsMember(path: string): boolean {
    const [directory, name] = this.#above(path);
    return directory?.members.has(name) === true;
  }

  /** A comparison of everything begins. */
  begin(): void {
    this.#refused = 0;
  }

  /** These are all children of a path. */
  children(path: string, names: readonly string[]): Children {
    const directory = this.#directory(path);
    if (directory === undefined) return { paths: [], members: [] };
    this.#unreadable.delete(path);
    this.#missing.delete(path);
    const members: { path: string; isNew: boolean }[] = [];
    const paths: { path: string; isNew: boolean }[] = [];
    const named = new Set(names);
    for (const name of [...directory.members.keys()]) if (!named.has(name)) this.#drop(directory, name);
    for (const below of [...directory.below]) {
      if (!named.has(below.slice(below.lastIndexOf('/') + 1))) this.absent(below);
    }
    const descends = this.#options.roots.kind === 'tree';
    for (const name of named) {
      const child = path === '/' ? `/${name}` : `${path}/${name}`;
      if (MEMBER.test(name)) {
        const isNew = !directory.members.has(name);
        const { instances, instancesPerService } = registryLimits;
        if (isNew && (this.#members >= instances || directory.members.size >= instancesPerService))
          this.#refused++;
        else {
          if (isNew) {
            this.#members++;
            directory.members.set(name, { problems: [] });
          }
          members.push({ path: child, isNew });
        }
      } else if (descends && !directory.below.has(child)) {
        const root = this.roots[0]!;
        const depth = child.slice(root.length).split('/').length;
        if (depth > MAX_DEPTH || child.length > MAX_PATH || this.#paths >= MAX_PATHS) this.#refused++;
        else {
          this.#paths++;
          directory.below.add(child);
          paths.push({ path: child, isNew: true });
        }
      } else if (descends) paths.push({ path: child, isNew: false });
    }
    this.#touch(directory);
    return { paths, members };
  }

  /** The data of a member. */
  member(path: string, bytes: Uint8Array): void {
    const [directory, name] = this.#above(path);
    if (!directory?.members.has(name)) return;
    this.#unreadable.delete(path);
    this.#put(directory, name, this.#read(bytes));
    this.#touch(directory);
  }

  /** A member, or a path with everything below it, is not there. */
  absent(path: string): void {
    this.#unreadable.delete(path);
    if (this.roots.includes(path)) this.#missing.add(path);
    const [above, name] = this.#above(path);
    if (above?.members.has(name)) {
      this.#drop(above, name);
      this.#touch(above);
      return;
    }
    if (above?.below.delete(path)) this.#paths--;
    const directory = this.#directories.get(path);
    if (directory === undefined) return;
    for (const below of [...directory.below]) this.absent(below);
    for (const member of [...directory.members.keys()]) this.#drop(directory, member);
    this.#touch(directory);
    this.#directories.delete(path);
  }

  /** A path is there, and the server does not let us read it: what was known of it stays. */
  refused(path: string, why: string): void {
    const [above, name] = this.#above(path);
    const known = this.roots.includes(path) || above?.below.has(path) || above?.members.has(name);
    if (known) this.#unreadable.set(path, why);
  }

  /** Instances at these hosts have another address now. */
  moved(hosts: ReadonlySet<string>): void {
    for (const directory of this.#directories.values()) {
      for (const { member } of directory.members.values()) {
        for (const { host } of member?.endpoints.values() ?? []) if (hosts.has(host)) this.#touch(directory);
      }
    }
  }

  /** Everything. */
  full(complete: boolean): SourceUpdate {
    this.#touched.clear();
    this.#newHosts.clear();
    const services = Array.from(this.#claims.keys(), (name) => this.#service(name)).filter(
      (s) => s !== undefined,
    );
    return { kind: 'full', services, nodes: [], complete };
  }

  /** What is another since the last call; undefined when nothing. */
  changes(): SourceUpdate | undefined {
    if (this.#touched.size === 0) return undefined;
    const services: Service[] = [];
    const removedServices: ServiceName[] = [];
    for (const name of this.#touched) {
      const service = this.#service(name);
      if (service === undefined) removedServices.push(name);
      else services.push(service);
    }
    this.#touched.clear();
    return { kind: 'change', services, removedServices, nodes: [], removedNodes: [] };
  }

  #directory(path: string): Directory | undefined {
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    if (!this.roots.includes(path) && !this.#above(path)[0]?.below.has(path)) return undefined;
    const directory: Directory = { path, below: new Set(), members: new Map(), readable: 0 };
    this.#directories.set(path, directory);
    return directory;
  }

  /** The directory that holds a path, and the path's name in it. */
  #above(path: string): readonly [Directory | undefined, string] {
    const cut = path.lastIndexOf('/');
    return [this.#directories.get(path.slice(0, cut) || '/'), path.slice(cut + 1)];
  }

  #put(directory: Directory, name: string, said: Said): void {
    if (directory.members.get(name)?.member !== undefined) directory.readable--;
    if (said.member !== undefined) directory.readable++;
    directory.members.set(name, said);
  }

  #drop(directory: Directory, member: string): void {
    this.#put(directory, member, { problems: [] });
    if (directory.members.delete(member)) this.#members--;
    this.#unreadable.delete(`${directory.path}/${member}`);
  }

  #read(bytes: Uint8Array): Said {
    try {
      const member = parseMember(bytes, this.#wanted);
      for (const { host } of member.endpoints.values()) this.#newHosts.add(host);
      return { member, problems: member.problems };
    } catch (error) {
      if (error instanceof MemberError) return { problems: [error.message] };
      throw error;
    }
  }

  #touch({ path, readable }: Directory): void {
    for (const { name } of this.#bindings(path)) {
      this.#touched.add(name);
      const claims = this.#claims.get(name);
      if (readable > 0) {
        if (claims === undefined) this.#claims.set(name, new Set([path]));
        else claims.add(path);
      } else if (claims?.delete(path) === true && claims.size === 0) this.#claims.delete(name);
    }
  }

  /** Services that a path stands for. */
  #bindings(path: string): readonly { readonly name: ServiceName; readonly endpoint: string }[] {
    const { roots } = this.#options;
    if (roots.kind === 'services') return roots.services.filter((service) => service.path === path);
    const below = path.slice(roots.path === '/' ? 1 : roots.path.length + 1);
    // The root itself has a name, too: somebody may follow one serverset.
    const segments =
      below === '' ? [roots.path.slice(roots.path.lastIndexOf('/') + 1)] : below.split('/').reverse();
    const name = parseServiceName(roots.names === 'last' ? segments[0]! : segments.join('.'));
    return name === undefined ? [] : [{ name, endpoint: '' }];
  }

  #service(name: ServiceName): Service | undefined {
    this.#disputes.delete(name);
    const claims = this.#claims.get(name);
    if (claims === undefined) return undefined;
    const [path, ...others] = [...claims].sort();
    if (others.length > 0) {
      this.#disputes.set(
        name,
        `service ${name}: ${path} and ${others.length} other paths are called so; the first is used`,
      );
    }
    const endpoint = this.#bindings(path!).find((binding) => binding.name === name)?.endpoint ?? '';
    const instances = new Map<string, Instance>();
    const { members } = this.#directories.get(path!)!;
    // In the order in which they joined: of two members at one address the older is what a crash left behind, until
    // its session expires.
    for (const member of [...members.keys()].sort()) {
      const instance = this.#instance(members.get(member)!.member, endpoint);
      if (instance !== undefined) instances.set(instance.id, instance);
    }
    return {
      name,
      ...serviceDefaults,
      balance: this.#options.balance,
      hosts: [],
      addresses: [],
      instances: [...instances.values()],
    };
  }

  #instance(member: ServersetMember | undefined, endpoint: string): Instance | undefined {
    const said = member?.endpoints.get(endpoint);
    if (member?.alive !== true || said === undefined) return undefined;
    const ip = this.#options.ipOf(said.host);
    if (ip === undefined) return undefined;
    const address: Endpoint = { ip, port: said.port };
    return {
      id: endpointKey(address) as string as InstanceId,
      address,
      ...(member.node === undefined ? {} : { node: member.node }),
      zone: member.zone ?? this.#options.zone,
      labels: member.labels,
      weight: DEFAULT_WEIGHT,
      draining: false,
    };
  }
}
