import { endpointKey, parseIp } from '../model/address.ts';
import {
  type BalancePolicy,
  type Instance,
  type InstanceId,
  type MeshNode,
  parseNodeName,
  parseServiceName,
  protocols,
  type Service,
  type ServiceName,
  serviceModes,
} from '../model/service.ts';
import { DEFAULT_WEIGHT, serviceDefaults } from './defaults.ts';
import { registryLimits } from './limits.ts';

/*
 * What Consul's answers mean (docs/registries.md, "Consul"), without I/O. One entry's mistakes are its own: it is
 * reported and left out, all others stay. Keys of Meta are letters, digits, - and _ only, so ours have no dot.
 */

/** Prefix of the keys of Meta that are ours. */
const OURS = 'mesh-node-';
/** Consul's own servers: nobody's service. */
const CONSUL = 'consul';

/** What is read for services whose registry says less. */
export interface ConsulDefaults {
  readonly zone: string;
  readonly balance: BalancePolicy;
}

/** What `/v1/health/service/NAME` says. */
export interface ConsulService {
  readonly service: Service;
  readonly nodes: readonly MeshNode[];
  readonly problems: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;

/** Names of the services that have all `tags`; undefined when the answer is none of `/v1/catalog/services`. */
export function readNames(
  body: unknown,
  tags: readonly string[],
): { readonly names: ReadonlySet<ServiceName>; readonly problems: readonly string[] } | undefined {
  const services = fieldsOf(body);
  if (services === undefined) return undefined;
  const names = new Set<ServiceName>();
  const problems: string[] = [];
  let beyond = 0;
  for (const [text, theirs] of Object.entries(services)) {
    if (text === CONSUL || !tags.every((tag) => Array.isArray(theirs) && theirs.includes(tag))) continue;
    const name = parseServiceName(text);
    if (name === undefined)
      problems.push(`service ${printable(text)}: expected lower-case letters, digits, - and .`);
    else if (names.size >= registryLimits.services) beyond++;
    else names.add(name);
  }
  if (beyond > 0) problems.push(`${beyond} services beyond ${registryLimits.services} are left out`);
  return { names, problems };
}

/** The instances of a service; undefined when the answer is none of `/v1/health/service/NAME`. */
export function readHealth(
  name: ServiceName,
  body: unknown,
  defaults: ConsulDefaults,
): ConsulService | undefined {
  if (!Array.isArray(body)) return undefined;
  const problems: string[] = [];
  const instances = new Map<string, Instance>();
  const nodes = new Map<string, MeshNode>();
  let protocol: Service['protocol'] | undefined;
  let mode: Service['mode'] | undefined;
  const entries: readonly unknown[] = body.slice(0, registryLimits.instancesPerService);
  if (body.length > entries.length)
    problems.push(`service ${name}: ${body.length - entries.length} instances too many are left out`);
  for (const entry of entries) {
    const node = fieldsOf(fieldsOf(entry)?.['Node']) ?? {};
    const service = fieldsOf(fieldsOf(entry)?.['Service']) ?? {};
    const own = fieldsOf(service['Meta']) ?? {};
    const shared = fieldsOf(node['Meta']) ?? {};
    const problem = (text: string) =>
      problems.push(`service ${name}, ${printable(textOf(service['ID']) || textOf(node['Node']))}: ${text}`);
    const said = (key: string): string | undefined =>
      textOf(own[OURS + key]) || textOf(shared[OURS + key]) || undefined;
    const ip = parseIp(textOf(service['Address']) || textOf(node['Address']));
    const port = portOf(service['Port']);
    if (ip === undefined || port === undefined) {
      problem('expected an IP address and a port');
      continue;
    }
    const address = { ip, port };
    const id = endpointKey(address) as string as InstanceId;
    if (instances.has(id)) {
      problem(`${id} is there already; the first is used`);
      continue;
    }
    protocol ??= known(protocols, said('protocol'), 'protocol', problem);
    mode ??= known(serviceModes, said('mode'), 'mode', problem);
    const zoneText = said('zone');
    const zone = zoneText === undefined ? defaults.zone : parseNodeName(zoneText);
    if (zone === undefined) problem(`zone ${printable(zoneText ?? '')}: expected a zone name`);
    const inZone = zone ?? defaults.zone;
    const mesh = readNode(node, inZone, said('name'), said('tunnel'), problem);
    if (mesh !== undefined && !nodes.has(mesh.name)) nodes.set(mesh.name, mesh);
    instances.set(id, {
      id,
      address,
      ...(mesh === undefined ? {} : { node: mesh.name }),
      zone: inZone,
      labels: readLabels(service['Tags'], own, problem),
      weight: weightOf(fieldsOf(service['Weights'])?.['Passing']),
      draining: false,
    });
  }
  const service: Service = {
    name,
    ...serviceDefaults,
    ...(protocol === undefined ? {} : { protocol }),
    ...(mode === undefined ? {} : { mode }),
    balance: defaults.balance,
    hosts: [],
    addresses: [],
    instances: withDefaultWeight([...instances.values()]),
  };
  return { service, nodes: [...nodes.values()], problems };
}

type Report = (text: string) => void;

function readNode(
  node: Fields,
  zone: string,
  called: string | undefined,
  tunnel: string | undefined,
  problem: Report,
): MeshNode | undefined {
  if (tunnel === undefined) return undefined;
  const port = /^\d{1,5}$/.test(tunnel) ? portOf(Number(tunnel)) : undefined;
  const ip = parseIp(textOf(node['Address']));
  const name = parseNodeName(called ?? textOf(node['Node']));
  if (port !== undefined && ip !== undefined && name !== undefined)
    return { name, zone, tunnel: { ip, port } };
  problem(`${OURS}tunnel: expected a port, the node's IP address, and a node name`);
  return undefined;
}

function readLabels(tags: unknown, meta: Fields, problem: Report): Readonly<Record<string, string>> {
  const labels = new Map<string, string>();
  let refused = 0;
  const put = (key: string, value: string) => {
    const fits =
      key !== '' && key.length <= registryLimits.labelKey && value.length <= registryLimits.labelValue;
    if (fits && (labels.has(key) || labels.size < registryLimits.labels)) labels.set(key, value);
    else refused++;
  };
  for (const tag of Array.isArray(tags) ? tags : []) {
    if (typeof tag !== 'string') continue;
    const equals = tag.indexOf('=');
    if (equals < 0) put(tag, 'true');
    else put(tag.slice(0, equals), tag.slice(equals + 1));
  }
  for (const [key, value] of Object.entries(meta))
    if (!key.startsWith(OURS) && typeof value === 'string') put(key, value);
  if (refused > 0) problem(`${refused} labels are empty, too long or too many`);
  // Not by assignment: a label may be called __proto__.
  return Object.fromEntries([...labels].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function known<T extends string>(
  values: readonly T[],
  text: string | undefined,
  what: string,
  problem: Report,
): T | undefined {
  const value = values.find((each) => each === text);
  if (text !== undefined && value === undefined)
    problem(`${what} ${printable(text)}: expected one of ${values.join(', ')}`);
  return value;
}

/** Consul gives 1 to all that name no weight. */
function withDefaultWeight(instances: readonly Instance[]): readonly Instance[] {
  if (instances.some(({ weight }) => weight !== 1)) return instances;
  return instances.map((instance) => ({ ...instance, weight: DEFAULT_WEIGHT }));
}

function weightOf(value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value)) return 1;
  return Math.min(65535, Math.max(1, value));
}

function portOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 65535
    ? value
    : undefined;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function fieldsOf(value: unknown): Fields | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

/** Text of a stranger as it may stand in a log. */
function printable(text: string): string {
  return JSON.stringify(text.length <= 100 ? text : `${text.slice(0, 100)}…`);
}
