import { endpointKey } from '../model/address.ts';
import {
  type Instance,
  type InstanceId,
  type MeshNode,
  type Protocol,
  parseNodeName,
  parseServiceName,
  protocols,
  type ServiceName,
} from '../model/service.ts';
import { DEFAULT_WEIGHT } from './defaults.ts';
import { registryLimits } from './limits.ts';
import type { SerfMember } from './serf-rpc.ts';

/*
 * What the tags of a member mean (docs/registries.md, "Serf"). One member's mistakes are its own: a bad entry is
 * reported with the member's name and left out, everything else of the member and all others stay.
 */

/** Services that one member can name; Serf's 512 bytes of tags hold fewer. */
const MAX_SERVICES = 256;

/** What one member adds to the catalogue. */
export interface Contribution {
  readonly services: ReadonlyMap<
    ServiceName,
    { readonly instance: Instance; readonly protocol: Protocol | undefined }
  >;
  readonly node: MeshNode | undefined;
  readonly problems: readonly string[];
}

const nothing: Contribution = Object.freeze({
  services: new Map(),
  node: undefined,
  problems: Object.freeze([]),
});

/** Reads a member's tags. A member that is neither alive nor leaving adds nothing. */
export function contributionOf(member: SerfMember, localZone: string): Contribution {
  if (member.status !== 'alive' && member.status !== 'leaving') return nothing;
  const problems: string[] = [];
  const problem = (text: string) => problems.push(`member ${printable(member.name)}: ${text}`);
  const zone = readZone(member, localZone, problem);
  const node = readNode(member, zone, problem);
  const labels = readLabels(member, problem);
  const services: Map<ServiceName, { instance: Instance; protocol: Protocol | undefined }> = new Map();
  const entries = (member.tags.get('services') ?? '').split(',', MAX_SERVICES + 1);
  if (entries.length > MAX_SERVICES) problem(`more than ${MAX_SERVICES} services; the rest is left out`);
  for (const entry of entries.slice(0, MAX_SERVICES)) {
    const text = entry.trim();
    if (text === '') continue;
    const colon = text.indexOf(':');
    const name = parseServiceName(colon < 0 ? text : text.slice(0, colon));
    if (name === undefined) {
      problem(`services: found ${printable(text)}; expected NAME or NAME:PORT`);
      continue;
    }
    const port = readPort(
      colon < 0 ? (member.tags.get(`port.${name}`) ?? member.tags.get('port')) : text.slice(colon + 1),
    );
    if (port === undefined) {
      problem(
        `service ${name} has no port; expected ${name}:PORT in services, or the tag port.${name} or port`,
      );
      continue;
    }
    if (services.has(name)) {
      problem(`service ${name} is named twice; the first is used`);
      continue;
    }
    const address = { ip: member.ip, port };
    services.set(name, {
      protocol: readProtocol(member, name, problem),
      instance: {
        id: endpointKey(address) as string as InstanceId,
        address,
        ...(node === undefined ? {} : { node: node.name }),
        zone,
        labels,
        weight: DEFAULT_WEIGHT,
        draining: member.status === 'leaving',
      },
    });
  }
  return { services, node, problems };
}

type Report = (text: string) => void;

function readZone(member: SerfMember, localZone: string, problem: Report): string {
  const text = member.tags.get('zone');
  if (text === undefined) return localZone;
  const zone = parseNodeName(text);
  if (zone === undefined)
    problem(`zone: found ${printable(text)}; expected a zone name; ${localZone} is used`);
  return zone ?? localZone;
}

function readNode(member: SerfMember, zone: string, problem: Report): MeshNode | undefined {
  const mesh = member.tags.get('mesh');
  if (mesh === undefined) return undefined;
  const port = readPort(mesh);
  const text = member.tags.get('mesh_name') ?? member.name;
  const name = parseNodeName(text);
  if (port === undefined) problem(`mesh: found ${printable(mesh)}; expected the port of the tunnel listener`);
  if (name === undefined)
    problem(`node name: found ${printable(text)}; expected lower-case letters, digits, - and .`);
  return port === undefined || name === undefined
    ? undefined
    : { name, zone, tunnel: { ip: member.ip, port } };
}

function readLabels(member: SerfMember, problem: Report): Readonly<Record<string, string>> {
  const labels: [string, string][] = [];
  for (const [tag, value] of member.tags) {
    if (!tag.startsWith('label.')) continue;
    const key = tag.slice('label.'.length);
    const fits =
      key !== '' && key.length <= registryLimits.labelKey && value.length <= registryLimits.labelValue;
    if (!fits || labels.length >= registryLimits.labels)
      problem(`label ${printable(key)} is empty, too long or too many`);
    else labels.push([key, value]);
  }
  // Not by assignment: a label may be called __proto__.
  return Object.fromEntries(labels.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function readProtocol(member: SerfMember, service: ServiceName, problem: Report): Protocol | undefined {
  const text = member.tags.get(`proto.${service}`);
  if (text === undefined) return undefined;
  const protocol = protocols.find((known) => known === text);
  if (protocol === undefined)
    problem(`proto.${service}: found ${printable(text)}; expected one of ${protocols.join(', ')}`);
  return protocol;
}

function readPort(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port >= 1 && port <= 65535 ? port : undefined;
}

/** Text of a stranger as it may stand in a log. */
function printable(text: string): string {
  return JSON.stringify(text.length <= 100 ? text : `${text.slice(0, 100)}…`);
}
