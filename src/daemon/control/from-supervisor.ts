import type { SourcePortList } from '../../caller/source-ports.ts';
import type { Endpoint } from '../../model/address.ts';
import type { PolicySet } from '../../model/policy.ts';
import type { Instance, MeshNode, Service } from '../../model/service.ts';
import type { SnapshotDelta } from '../../model/snapshot.ts';
import type { MessageReader } from './channel.ts';
import { type ToWorker, type WorkerSettings, workerLists } from './messages.ts';

/*
 * What a worker takes from its supervisor, which is of its own user and has checked what it passes on. So these are
 * questions of form only, cheap enough for a catalogue of 100,000 instances: nothing that is broken or cut short
 * may reach the data path.
 */

/** Values in one message: a service of 20,000 instances with all the labels that they may have. */
const MAX_VALUES = 4_000_000;

/** What a timer of Node takes; a longer one would be over at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type Fields = Readonly<Record<string, unknown>>;

const forms: { readonly [T in ToWorker['t']]: (message: Fields) => boolean } = {
  settings: ({ settings }) => areSettings(settings),
  delta: ({ delta, first, more }) => isDelta(delta) && isBoolean(first) && isBoolean(more),
  policies: ({ policies }) => arePolicies(policies),
  synced: () => true,
  ping: ({ id }) => isCount(id),
  drain: ({ timeoutMs, letGo }) => isDuration(timeoutMs) && isBoolean(letGo),
  await: () => true,
  list: ({ id, list, limit }) => isCount(id) && workerLists.some((known) => known === list) && isCount(limit),
  'reopen-logs': () => true,
  'source-ports': ({ id, ports }) => isCount(id) && arePorts(ports),
};

/** Reads what a supervisor says. */
export const fromSupervisor: MessageReader<ToWorker> = {
  maxValues: MAX_VALUES,
  read(value) {
    if (!isObject(value) || !isText(value['t'])) return undefined;
    if (!Object.hasOwn(forms, value['t'])) return 'unknown';
    return forms[value['t'] as ToWorker['t']](value) ? (value as unknown as ToWorker) : undefined;
  },
};

function areSettings(value: unknown): value is WorkerSettings {
  if (!isObject(value)) return false;
  const { config, node, relay, exempt, credentials } = value;
  if (!isObject(config) || !isText(node) || !isBoolean(relay) || !isObject(exempt)) return false;
  // The schema has checked the rest; these are used before the data plane is there.
  const { telemetry, daemon } = config;
  if (!isObject(telemetry) || !isDuration(telemetry['flushInterval']) || !isObject(daemon)) return false;
  const { drainTimeout, orphanTimeout, runtimeDirectory } = daemon;
  if (!isDuration(drainTimeout) || !isDuration(orphanTimeout) || !isText(runtimeDirectory)) return false;
  if (!isListOf(exempt['users'], isText) || !isListOf(exempt['units'], isText)) return false;
  if (credentials === undefined) return true;
  return isObject(credentials) && ['key', 'cert', 'ca'].every((name) => isText(credentials[name]));
}

function arePolicies(value: unknown): value is PolicySet {
  if (!isObject(value)) return false;
  const { version, common, services } = value;
  return (
    isCount(version) && isObject(common) && isObject(services) && Object.values(services).every(isObject)
  );
}

function isDelta(value: unknown): value is SnapshotDelta {
  return (
    isObject(value) &&
    Number.isSafeInteger(value['base']) &&
    isListOf(value['services'], isService) &&
    isListOf(value['removedServices'], isText) &&
    isListOf(value['nodes'], isNode) &&
    isListOf(value['removedNodes'], isText)
  );
}

function isService(value: unknown): value is Service {
  if (!isObject(value)) return false;
  const { name, protocol, mode, interchangeable, balance, hosts, addresses, instances } = value;
  const { ports, source, virtual, resolved } = value;
  return (
    isText(name) &&
    isText(protocol) &&
    isText(mode) &&
    isBoolean(interchangeable) &&
    isText(balance) &&
    isListOf(hosts, isText) &&
    isListOf(addresses, isEndpoint) &&
    isListOf(instances, isInstance) &&
    (ports === undefined || arePorts(ports)) &&
    (source === undefined || isText(source)) &&
    (virtual === undefined || isListOf(virtual, isText)) &&
    (resolved === undefined || isListOf(resolved, isEndpoint))
  );
}

function isInstance(value: unknown): value is Instance {
  if (!isObject(value)) return false;
  const { id, address, node, zone, labels, weight, draining } = value;
  return (
    isText(id) &&
    isEndpoint(address) &&
    (node === undefined || isText(node)) &&
    isText(zone) &&
    isObject(labels) &&
    isCount(weight) &&
    isBoolean(draining)
  );
}

function isNode(value: unknown): value is MeshNode {
  return isObject(value) && isText(value['name']) && isText(value['zone']) && isEndpoint(value['tunnel']);
}

function isEndpoint(value: unknown): value is Endpoint {
  return isObject(value) && isText(value['ip']) && isPort(value['port']);
}

function arePorts(value: unknown): value is SourcePortList {
  return isListOf(value, isPort);
}

/** 0: none. */
function isPort(value: unknown): boolean {
  return isCount(value) && (value as number) <= 65_535;
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isListOf(value: unknown, is: (item: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every((item) => is(item));
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === 'boolean';
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Milliseconds. */
function isDuration(value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && value <= MAX_TIMER_MS;
}
