import { type Endpoint, parseIp } from '../model/address.ts';
import {
  balancePolicies,
  deliverySources,
  type Instance,
  MAX_SERVICE_PORTS,
  type MeshNode,
  parseInstanceId,
  parseNodeName,
  parseServiceName,
  protocols,
  type Service,
  serviceModes,
} from '../model/service.ts';
import { registryLimits } from './limits.ts';

/**
 * One line of the catalogue as it is written to disk and read back: which source said what, and when the source
 * last confirmed it (milliseconds since the epoch).
 */
export type CatalogueRecord =
  | {
      readonly kind: 'service';
      readonly source: string;
      readonly confirmedAt: number;
      readonly service: Service;
    }
  | { readonly kind: 'node'; readonly source: string; readonly confirmedAt: number; readonly node: MeshNode };

type Fields = Readonly<Record<string, unknown>>;

/** Reads a record of unknown origin by the rules that hold for registries; undefined when it breaks one. */
export function parseCatalogueRecord(value: unknown): CatalogueRecord | undefined {
  const fields = fieldsOf(value);
  const source = fields?.['source'];
  const confirmedAt = fields?.['confirmedAt'];
  if (fields === undefined || typeof source !== 'string' || !isTime(confirmedAt)) return undefined;
  if (fields['kind'] === 'service') {
    const service = parseService(fields['service']);
    return service && { kind: 'service', source, confirmedAt, service };
  }
  if (fields['kind'] === 'node') {
    const node = parseNode(fields['node']);
    return node && { kind: 'node', source, confirmedAt, node };
  }
  return undefined;
}

/** Reads a service of unknown origin; undefined when anything in it breaks a rule. */
export function parseService(value: unknown): Service | undefined {
  const fields = fieldsOf(value);
  if (fields === undefined) return undefined;
  const name = parseText(fields['name'], parseServiceName);
  const ports = optional(fields['ports'], (value) => parseList(value, MAX_SERVICE_PORTS, parsePort));
  const source = optional(fields['source'], (value) => deliverySources.find((known) => known === value));
  if (ports === null || source === null) return undefined;
  const protocol = protocols.find((known) => known === fields['protocol']);
  const mode = serviceModes.find((known) => known === fields['mode']);
  const balance = balancePolicies.find((known) => known === fields['balance']);
  const interchangeable = fields['interchangeable'];
  const hosts = parseList(fields['hosts'], registryLimits.aliasesPerService, parseHost);
  const addresses = parseList(fields['addresses'], registryLimits.aliasesPerService, parseEndpointFields);
  const instances = parseList(fields['instances'], registryLimits.instancesPerService, parseInstance);
  if (name === undefined || protocol === undefined || mode === undefined || balance === undefined)
    return undefined;
  if (hosts === undefined || addresses === undefined || instances === undefined) return undefined;
  if (typeof interchangeable !== 'boolean') return undefined;
  if (new Set(instances.map((instance) => instance.id)).size !== instances.length) return undefined;
  return {
    name,
    protocol,
    mode,
    interchangeable,
    balance,
    hosts,
    addresses,
    instances,
    ...(ports === undefined ? {} : { ports }),
    ...(source === undefined ? {} : { source }),
  };
}

/** Undefined when there is nothing, null when there is something that cannot be read. */
function optional<T>(value: unknown, parse: (value: unknown) => T | undefined): T | undefined | null {
  return value === undefined || value === null ? undefined : (parse(value) ?? null);
}

function parsePort(value: unknown): number | undefined {
  return isWithin(value, 1, 65535) ? value : undefined;
}

function parseNode(value: unknown): MeshNode | undefined {
  const fields = fieldsOf(value);
  const name = parseText(fields?.['name'], parseNodeName);
  const zone = parseText(fields?.['zone'], parseNodeName);
  const tunnel = parseEndpointFields(fields?.['tunnel']);
  return name === undefined || zone === undefined || tunnel === undefined
    ? undefined
    : { name, zone, tunnel };
}

function parseInstance(value: unknown): Instance | undefined {
  const fields = fieldsOf(value);
  if (fields === undefined) return undefined;
  const id = parseText(fields['id'], parseInstanceId);
  const address = parseEndpointFields(fields['address']);
  const zone = parseText(fields['zone'], parseNodeName);
  const labels = parseLabels(fields['labels']);
  const { weight, draining } = fields;
  if (id === undefined || address === undefined || zone === undefined || labels === undefined)
    return undefined;
  if (!isWithin(weight, 1, 65535) || typeof draining !== 'boolean') return undefined;
  const common = { id, address, zone, labels, weight, draining };
  if (fields['node'] === undefined || fields['node'] === null) return common;
  const node = parseText(fields['node'], parseNodeName);
  return node && { ...common, node };
}

function parseEndpointFields(value: unknown): Endpoint | undefined {
  const fields = fieldsOf(value);
  const ip = parseText(fields?.['ip'], parseIp);
  const port = fields?.['port'];
  return ip === undefined || !isWithin(port, 1, 65535) ? undefined : { ip, port };
}

function parseLabels(value: unknown): Instance['labels'] | undefined {
  const fields = fieldsOf(value);
  if (fields === undefined) return undefined;
  const entries = Object.entries(fields);
  const fits = ([key, text]: readonly [string, unknown]) =>
    key !== '' &&
    key.length <= registryLimits.labelKey &&
    typeof text === 'string' &&
    text.length <= registryLimits.labelValue;
  if (entries.length > registryLimits.labels || !entries.every(fits)) return undefined;
  return Object.fromEntries(entries) as Record<string, string>;
}

function parseHost(value: unknown): string | undefined {
  return parseText(value, parseServiceName);
}

function parseText<T>(value: unknown, parse: (text: string) => T | undefined): T | undefined {
  return typeof value === 'string' ? parse(value) : undefined;
}

function parseList<T>(
  value: unknown,
  limit: number,
  parse: (item: unknown) => T | undefined,
): T[] | undefined {
  if (!Array.isArray(value) || value.length > limit) return undefined;
  const list: T[] = [];
  for (const item of value) {
    const parsed = parse(item);
    if (parsed === undefined) return undefined;
    list.push(parsed);
  }
  return list;
}

function fieldsOf(value: unknown): Fields | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

function isWithin(value: unknown, least: number, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
}

function isTime(value: unknown): value is number {
  return isWithin(value, 0, Number.MAX_SAFE_INTEGER);
}
