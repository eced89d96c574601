import { type Ip, isIpv6, parseIp } from '../model/address.ts';
import { type Service, type ServiceName, servicePorts } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { addressBytes } from './address-bytes.ts';
import {
  AnswerWriter,
  MAX_NAME_BYTES,
  MAX_TCP_BYTES,
  nameBytes,
  type Owner,
  PLAIN_UDP_BYTES,
  readQuery,
  recordTypes,
  responseCodes,
  writeName,
} from './message.ts';
import type { NameIndex } from './name-index.ts';

/** Longest time that an answer may be kept, seconds: a day. */
const MAX_TTL = 86_400;

/** What an answer depends on beside the question. */
export interface NameSpace {
  /** `mesh`: what all names end in. */
  readonly domain: string;
  /** How long an answer may be kept, also one that says that there is nothing. */
  readonly ttlMs: number;
  readonly snapshot: Snapshot;
  readonly index: NameIndex;
}

export type Transport = 'udp' | 'tcp';

/** What a name means. */
type Meaning =
  | { readonly kind: 'service'; readonly service: Service }
  /** `_8080._tcp.orders` and the like: where the service is reached. */
  | { readonly kind: 'ports'; readonly service: Service; readonly ports: readonly number[] }
  | { readonly kind: 'apex' }
  /** Nothing by itself, but there are names below it. */
  | { readonly kind: 'empty' }
  | { readonly kind: 'pointer'; readonly service: ServiceName }
  | { readonly kind: 'nothing' }
  /** Not of the domain: others know, we do not. */
  | { readonly kind: 'foreign' };

/**
 * The answer to a message of unknown origin; undefined when none may be given. Never throws, and never makes more than
 * the asker takes.
 */
export function answer(message: Uint8Array, transport: Transport, names: NameSpace): Buffer | undefined {
  const reading = readQuery(message);
  if (reading.kind === 'ignore') return undefined;
  if (reading.kind === 'refuse')
    return new AnswerWriter(reading.envelope, PLAIN_UDP_BYTES).finish(reading.code, false);
  const { query, envelope } = reading;
  const ttl = secondsOf(names);
  const meaning = meaningOf(query.labels, names);
  const writer = new AnswerWriter(envelope, transport === 'tcp' ? MAX_TCP_BYTES : query.udpBytes);
  if (meaning.kind === 'foreign') return writer.finish(responseCodes.refused, false);
  const wants = (type: number): boolean => query.type === type || query.type === recordTypes.any;
  const domain = names.domain.split('.');
  let found = false;
  const write = (...record: Parameters<AnswerWriter['record']>): void => {
    found ||= record[0] === 'answer';
    writer.record(...record);
  };
  switch (meaning.kind) {
    case 'apex':
      if (wants(recordTypes.soa)) writeAuthority(write, 'answer', names);
      break;
    case 'service': {
      const { service } = meaning;
      writeAddresses(write, 'answer', 'question', service, ttl, query.type);
      if (wants(recordTypes.srv)) {
        writePorts(write, [...service.name.split('.'), ...domain], servicePorts(service), ttl);
        if (found && query.type === recordTypes.srv)
          writeAddresses(write, 'additional', 'question', service, ttl, recordTypes.any);
      }
      break;
    }
    case 'ports':
      if (wants(recordTypes.srv)) {
        const target = [...meaning.service.name.split('.'), ...domain];
        writePorts(write, target, meaning.ports, ttl);
        writeAddresses(write, 'additional', target, meaning.service, ttl, recordTypes.any);
      }
      break;
    case 'pointer':
      if (wants(recordTypes.ptr)) {
        const target = [...meaning.service.split('.'), ...domain];
        write('answer', 'question', recordTypes.ptr, ttl, nameBytes(target), (bytes, at) =>
          writeName(bytes, at, target),
        );
      }
      break;
    case 'empty':
    case 'nothing':
      break;
  }
  // Without it nobody may remember that there is nothing (RFC 2308).
  if (!found && meaning.kind !== 'pointer') writeAuthority(write, 'authority', names);
  return writer.finish(meaning.kind === 'nothing' ? responseCodes.nameError : responseCodes.ok, true);
}

function meaningOf(labels: readonly string[], names: NameSpace): Meaning {
  const { snapshot, index } = names;
  const domain = names.domain.split('.');
  const own = labels.length - domain.length;
  if (own < 0 || !domain.every((label, i) => labels[own + i] === label)) return pointer(labels, names);
  if (own === 0) return { kind: 'apex' };
  const rest = labels.slice(0, own);
  // A dot inside a label is a byte like any other, and no service has one.
  if (rest.some((label) => label.includes('.'))) return { kind: 'nothing' };
  const name = rest.join('.');
  const service = snapshot.services.get(name as ServiceName);
  if (service !== undefined) return { kind: 'service', service };
  const [first = '', second = ''] = rest;
  if (first === '_tcp') {
    if (snapshot.services.has(rest.slice(1).join('.') as ServiceName)) return { kind: 'empty' };
  } else if (first.startsWith('_') && second === '_tcp') {
    const target = snapshot.services.get(rest.slice(2).join('.') as ServiceName);
    const ports = target === undefined ? [] : portsOf(target, first.slice(1));
    if (target !== undefined && ports.length > 0) return { kind: 'ports', service: target, ports };
  }
  return index.hasBelow(snapshot, name) ? { kind: 'empty' } : { kind: 'nothing' };
}

/** `_8080`: this port if the service has it; `_http`: all of them if that is its protocol. */
function portsOf(service: Service, word: string): readonly number[] {
  const ports = servicePorts(service);
  return service.protocol === word ? ports : ports.filter((port) => String(port) === word);
}

/** Virtual addresses have names, too; all other addresses are none of ours. */
function pointer(labels: readonly string[], { domain, snapshot, index }: NameSpace): Meaning {
  const ip = reverseAddress(labels);
  const service = ip === undefined ? undefined : index.owner(snapshot, ip);
  // A service may have a name that is too long for the domain.
  return service === undefined || service.length + domain.length + 3 > MAX_NAME_BYTES
    ? { kind: 'foreign' }
    : { kind: 'pointer', service };
}

/** The address that a name below in-addr.arpa or ip6.arpa stands for. */
function reverseAddress(labels: readonly string[]): Ip | undefined {
  const [family, arpa] = labels.slice(-2);
  if (arpa !== 'arpa') return undefined;
  const parts = labels.slice(0, -2).reverse();
  if (family === 'in-addr' && parts.length === 4) return parseIp(parts.join('.'));
  if (family !== 'ip6' || parts.length !== 32 || !parts.every((part) => /^[0-9a-f]$/.test(part)))
    return undefined;
  return parseIp(parts.join('').match(/.{4}/g)!.join(':'));
}

type Write = (...record: Parameters<AnswerWriter['record']>) => void;

function writeAddresses(
  write: Write,
  section: 'answer' | 'additional',
  owner: Owner,
  service: Service,
  ttl: number,
  wanted: number,
): void {
  for (const ip of service.virtual ?? []) {
    const type = isIpv6(ip) ? recordTypes.aaaa : recordTypes.a;
    if (wanted !== type && wanted !== recordTypes.any) continue;
    const address = addressBytes(ip);
    write(section, owner, type, ttl, address.length, (bytes, at) => bytes.set(address, at));
  }
}

/** One record for each port, all of the same priority and weight: the agent balances behind the address. */
function writePorts(write: Write, target: readonly string[], ports: readonly number[], ttl: number): void {
  for (const port of ports) {
    write('answer', 'question', recordTypes.srv, ttl, 6 + nameBytes(target), (bytes, at) => {
      bytes.writeUInt32BE(0, at);
      bytes.writeUInt16BE(port, at + 4);
      writeName(bytes, at + 6, target); // never compressed (RFC 2782)
    });
  }
}

/** DNS knows whole seconds; none would mean not to keep it for a moment. */
function secondsOf({ ttlMs }: NameSpace): number {
  return Math.min(MAX_TTL, Math.max(1, Math.round(ttlMs / 1000)));
}

/** Start of authority: says how long it may be remembered that there is nothing. */
function writeAuthority(write: Write, section: 'answer' | 'authority', names: NameSpace): void {
  const domain = names.domain.split('.');
  const mailbox = ['hostmaster', ...domain];
  const size = nameBytes(domain) + nameBytes(mailbox) + 20;
  const ttl = secondsOf(names);
  write(section, domain, recordTypes.soa, ttl, size, (bytes, at) => {
    let end = writeName(bytes, at, domain);
    end = writeName(bytes, end, mailbox);
    // Serial, refresh, retry, expire: nobody transfers this zone. Minimum: how long "nothing" holds.
    for (const value of [names.snapshot.version >>> 0, 3600, 600, 86_400, ttl])
      end = bytes.writeUInt32BE(value, end);
  });
}
