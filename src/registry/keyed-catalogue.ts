import type { z } from 'zod';
import {
  type InstanceId,
  type NodeName,
  parseInstanceId,
  parseNodeName,
  parseServiceName,
  type ServiceName,
} from '../model/service.ts';
import { type CatalogueDocument, instanceSchema, nodeSchema, serviceSchema } from './document.ts';
import { registryLimits } from './limits.ts';

/*
 * The layout of registries that hold keys with values (docs/registries.md), below a prefix:
 *   services/NAME                  the service without its instances; without it, a service has the defaults
 *   services/NAME/instances/ID     one instance
 *   nodes/NAME                     one mesh node
 * Values are JSON with the fields of the `file` registry.
 */

/** Most bytes of one value: a service with 256 aliases of full length has a quarter of it. */
const MAX_VALUE_BYTES = 512 * 1024;
/** Keys whose mistakes are remembered in words; more are counted. */
const MAX_TOLD_KEYS = 1000;
/** Keys of one registry; further ones are not taken. */
const MAX_KEYS = registryLimits.services + registryLimits.instances + registryLimits.nodes;

type WrittenService = CatalogueDocument['services'][number];
type WrittenInstance = WrittenService['instances'][number];
type WrittenNode = CatalogueDocument['nodes'][number];

type Place =
  | { readonly kind: 'service'; readonly name: ServiceName }
  | { readonly kind: 'instance'; readonly name: ServiceName; readonly id: InstanceId }
  | { readonly kind: 'node'; readonly name: NodeName };

/** What the keys say of one service. */
interface Entry {
  /** Undefined while no key describes it. */
  document: WrittenService | undefined;
  /** Its description never could be read: it is not told, because defaults could be laxer than what was meant. */
  broken: boolean;
  readonly instances: Map<InstanceId, WrittenInstance>;
  /** The two together; undefined when that has to be made again. */
  written: WrittenService | undefined;
}

const UTF8 = new TextDecoder('utf-8', { fatal: true });
const defaults = serviceSchema.omit({ name: true }).parse({});
const serviceValue = serviceSchema.partial({ name: true }).omit({ instances: true });
const nodeValue = nodeSchema.partial({ name: true });

/**
 * Keys and values of a registry as one document, without I/O. A value that cannot be used is a problem of its key,
 * which keeps its last good value; all others go on. Bounded by {@link registryLimits}.
 */
export class KeyedCatalogue {
  readonly #services = new Map<ServiceName, Entry>();
  readonly #nodes = new Map<NodeName, WrittenNode>();
  readonly #brokenNodes = new Set<NodeName>();
  /** What is wrong with a key; without words beyond {@link MAX_TOLD_KEYS}. */
  readonly #bad = new Map<string, string>();
  /** Every key that was taken or refused, with the version of its value. */
  readonly #versions = new Map<string, string>();
  /** Keys of the listing that goes on. */
  #seen = new Set<string>();
  #brokenServices = 0;
  #instances = 0;
  #beyond = 0;

  /** All that is wrong, in the order of the keys. */
  get problems(): string[] {
    const told = Array.from(this.#bad).filter(([, text]) => text !== '');
    const lines = told.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, text]) => text);
    if (this.#bad.size > told.length) lines.push(`${this.#bad.size - told.length} more keys cannot be used`);
    if (this.#beyond > 0) lines.push(`${this.#beyond} keys beyond the bounds of a registry are left out`);
    return lines;
  }

  /** False when a service or node is described by something that never could be read. */
  get complete(): boolean {
    return this.#brokenServices === 0 && this.#brokenNodes.size === 0;
  }

  /** True when no key says anything. */
  get empty(): boolean {
    return this.#versions.size === 0;
  }

  /** All keys are about to be put. Versions of another history mean nothing: with `anew` all values are read again. */
  beginList(anew: boolean): void {
    this.#seen = new Set();
    this.#beyond = 0;
    if (anew) for (const key of this.#versions.keys()) this.#versions.set(key, '');
  }

  /** All keys were put: others are gone. */
  endList(): void {
    for (const key of this.#versions.keys()) if (!this.#seen.has(key)) this.remove(key);
    this.#seen = new Set();
  }

  /**
   * A key below the prefix (without it) has this value; undefined: one too large to be read. The version is another one
   * (and not the empty text) when the value is.
   */
  put(key: string, version: string, value: Uint8Array | undefined): void {
    const before = this.#versions.get(key);
    if (before === undefined && this.#versions.size >= MAX_KEYS) {
      this.#beyond++;
      return;
    }
    this.#seen.add(key);
    if (before === version) return;
    this.#versions.set(key, version);
    this.#bad.delete(key);
    const place = placeOf(key);
    if (place === undefined) {
      const expected = 'services/NAME, services/NAME/instances/ID or nodes/NAME';
      this.#problem(key, `found an unknown key; expected ${expected}`);
      return;
    }
    try {
      if (this.#take(place, readJson(value))) return;
      this.#versions.delete(key);
      this.#beyond++;
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      this.#problem(key, error.message);
      this.#miss(place);
    }
  }

  /** A key is gone. */
  remove(key: string): void {
    this.#versions.delete(key);
    this.#bad.delete(key);
    const place = placeOf(key);
    if (place === undefined) return;
    if (place.kind === 'node') {
      this.#nodes.delete(place.name);
      this.#brokenNodes.delete(place.name);
      return;
    }
    const entry = this.#services.get(place.name);
    if (entry === undefined) return;
    entry.written = undefined;
    if (place.kind === 'service') {
      entry.document = undefined;
      this.#mend(entry);
    } else if (entry.instances.delete(place.id)) this.#instances--;
    if (entry.document === undefined && !entry.broken && entry.instances.size === 0)
      this.#services.delete(place.name);
  }

  /** Everything as one document. What did not change since the last call is the same object. */
  document(): CatalogueDocument {
    const services: WrittenService[] = [];
    for (const [name, entry] of this.#services) {
      if (entry.broken) continue;
      entry.written ??= {
        ...(entry.document ?? { ...defaults, name }),
        instances: [...entry.instances.values()],
      };
      services.push(entry.written);
    }
    return { services, nodes: [...this.#nodes.values()] };
  }

  /** False when a bound of the registry is reached. Throws a ValueError. */
  #take(place: Place, value: unknown): boolean {
    if (place.kind === 'node') {
      const node = check(nodeValue, value);
      if (node.name !== undefined && node.name !== place.name) throw otherThanKey('name', node.name);
      this.#brokenNodes.delete(place.name);
      if (!this.#nodes.has(place.name) && this.#nodes.size >= registryLimits.nodes) return false;
      this.#putNode({ ...node, name: place.name });
      return true;
    }
    if (place.kind === 'service') {
      const document = check(serviceValue, value);
      if (document.name !== undefined && document.name !== place.name)
        throw otherThanKey('name', document.name);
      const entry = this.#entry(place.name);
      if (entry === undefined) return false;
      entry.document = { ...document, name: place.name, instances: [] };
      entry.written = undefined;
      this.#mend(entry);
      return true;
    }
    const instance = check(instanceSchema, value);
    if (instance.id !== undefined && instance.id !== place.id) throw otherThanKey('id', instance.id);
    const { instances, instancesPerService } = registryLimits;
    const there = this.#services.get(place.name)?.instances;
    if (there?.has(place.id) !== true) {
      if (this.#instances >= instances || (there?.size ?? 0) >= instancesPerService) return false;
    }
    const entry = this.#entry(place.name);
    if (entry === undefined) return false;
    if (!entry.instances.has(place.id)) this.#instances++;
    entry.instances.set(place.id, { ...instance, id: place.id });
    entry.written = undefined;
    return true;
  }

  /** The value cannot be used: what was said before stays, and what never was said is missing. */
  #miss(place: Place): void {
    if (place.kind === 'node' && !this.#nodes.has(place.name)) this.#brokenNodes.add(place.name);
    if (place.kind !== 'service') return;
    const entry = this.#entry(place.name);
    // A service that is told with defaults goes on with them.
    if (entry === undefined || entry.document !== undefined || entry.broken || entry.instances.size > 0)
      return;
    entry.broken = true;
    this.#brokenServices++;
  }

  /** A node that says what it said stays the same object. */
  #putNode(node: WrittenNode): void {
    const before = this.#nodes.get(node.name);
    const { ip, port } = node.tunnel;
    if (before?.zone === node.zone && before.tunnel.ip === ip && before.tunnel.port === port) return;
    this.#nodes.set(node.name, node);
  }

  #entry(name: ServiceName): Entry | undefined {
    let entry = this.#services.get(name);
    if (entry !== undefined) return entry;
    if (this.#services.size >= registryLimits.services) {
      this.#beyond++;
      return undefined;
    }
    entry = { document: undefined, broken: false, instances: new Map(), written: undefined };
    this.#services.set(name, entry);
    return entry;
  }

  #mend(entry: Entry): void {
    if (!entry.broken) return;
    entry.broken = false;
    this.#brokenServices--;
  }

  #problem(key: string, what: string): void {
    const text = this.#bad.size >= MAX_TOLD_KEYS ? '' : `key ${clip(JSON.stringify(key), 300)}: ${what}`;
    this.#bad.set(key, text);
  }
}

class ValueError extends Error {}

function otherThanKey(field: string, found: string): ValueError {
  return new ValueError(`${field}: found ${clip(JSON.stringify(found), 80)}; expected what the key says`);
}

function placeOf(key: string): Place | undefined {
  const [kind, name = '', word, ...rest] = key.split('/', 4);
  if (kind === 'nodes') {
    const node = word === undefined ? parseNodeName(name) : undefined;
    return node && { kind: 'node', name: node };
  }
  const service = kind === 'services' ? parseServiceName(name) : undefined;
  if (service === undefined) return undefined;
  if (word === undefined) return { kind: 'service', name: service };
  if (word !== 'instances' || rest.length === 0) return undefined;
  // What follows is the id, which may have a / itself.
  const id = parseInstanceId(key.slice(`services/${name}/instances/`.length));
  return id && { kind: 'instance', name: service, id };
}

function readJson(value: Uint8Array | undefined): unknown {
  if (value === undefined || value.length > MAX_VALUE_BYTES)
    throw new ValueError(`found a value of more than ${MAX_VALUE_BYTES} bytes`);
  if (value.length === 0) throw new ValueError('found an empty value; expected a JSON object');
  try {
    return JSON.parse(UTF8.decode(value));
  } catch {
    throw new ValueError('found a value that is no JSON; expected a JSON object');
  }
}

function check<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue!.path.length === 0 ? '' : `${issue!.path.map(String).join('.')}: `;
  throw new ValueError(clip(`${where}${issue!.message}`, 300));
}

function clip(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most)}…`;
}
