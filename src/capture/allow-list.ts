import ipaddr from 'ipaddr.js';
import { MeshError } from '../model/errors.ts';

/*
 * The allow-list: destinations and callers that are never touched. One entry a line, `#` begins a comment.
 *
 *   10.0.0.1               an address, every port        fd00::1
 *   10.0.0.0/8             a network, every port         fd00::/8
 *   10.0.0.1:5432          an address and port           [fd00::1]:5432
 *   10.0.0.0/8:8000-9000   a network and ports           [fd00::/8]:8000-9000
 *   tcp/22                 a port on any address         tcp/6000-6100
 *   db.example.com         what a host name resolves to  db.example.com:5432
 *   user:backup            everything of a user          user:1003
 *   unit:backup.service    everything of a systemd unit  unit:backup-jobs.slice
 */

/** Ports of an entry, both ends included. */
interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** A destination that is never touched. An absent network is any address of both families; absent ports are all. */
export interface AllowEntry {
  readonly network?: { readonly family: 'ipv4' | 'ipv6'; readonly address: string; readonly prefix: number };
  readonly ports?: PortRange;
}

/** Destinations, in the order of the file, without duplicates. */
export type AllowList = readonly AllowEntry[];

/** A host name, for the addresses that it resolves to; absent ports are all. */
export interface AllowedHost {
  /** Lower-case, with a dot, without a final one. */
  readonly host: string;
  readonly ports?: PortRange;
}

/** A user, by name or number, whose connections are never touched. */
export interface AllowedUser {
  readonly user: string;
}

/** A systemd unit of the system manager whose connections are never touched, with its suffix. */
export interface AllowedUnit {
  readonly unit: string;
}

/** One line of an allow-list. All but destinations need to be looked up on this host, again and again. */
export type AllowListEntry = AllowEntry | AllowedHost | AllowedUser | AllowedUnit;

/** True for entries that stand for themselves. */
export function isDestination(entry: AllowListEntry): entry is AllowEntry {
  return !('host' in entry || 'user' in entry || 'unit' in entry);
}

/** What is wrong with one line of an allow-list. */
interface AllowListProblem {
  /** 1-based. */
  readonly line: number;
  /** 1-based, in characters. */
  readonly column: number;
  readonly found: string;
  readonly expected: string;
}

/**
 * Most entries of one list: every entry is a rule, and a new connection that may be captured is compared with each.
 * Measured with 8192 of them: 35 µs more for a connection with iptables-legacy, 400 µs with iptables-nft.
 */
export const MAX_ALLOW_ENTRIES = 8192;
/** Most bytes of one file: eight thousand entries with ample comments. */
export const MAX_ALLOW_BYTES = 1024 * 1024;
/** Most problems reported of one file; the rest of a file that is none (a binary, say) adds nothing. */
const MAX_PROBLEMS = 100;
/** Characters of a bad line that are quoted. */
const MAX_QUOTED = 60;

const DESTINATIONS =
  '10.0.0.1, 10.0.0.0/8, fd00::/8, tcp/22, tcp/6000-6100, 10.0.0.1:5432, 10.0.0.0/8:8000-9000 or [fd00::1]:443';
const FORMS = `${DESTINATIONS.replace(' or ', ', ')}, db.example.com, user:backup or unit:backup.service`;

/** A dot is asked for: `ssh` or `tcp22` are slips, and no names. */
const HOST =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** A last label that is a number belongs to an address in an unusual notation (`10.1`, `0x7f.1`). */
const NUMERIC_END = /\.(?:\d+|0x[0-9a-f]*)$/;
/** As useradd(8) takes them, in either case. */
const USER = /^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}$/;
/** systemd.unit(5): at most 255 characters with the suffix. */
const UNIT = /^[a-zA-Z0-9:_.\\@-]{1,247}\.(?:service|scope|slice)$/;
/** The largest user id; the one above it means "none" to the kernel. */
const MAX_UID = 4_294_967_294;

/** Reads `22` or `6000-6100`; a text says what was expected instead. */
function parsePorts(text: string): PortRange | string {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return 'a port or a range such as 6000-6100';
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  if (first < 1 || last > 65535 || first > 65535) return 'ports between 1 and 65535';
  if (last < first) return 'a range that begins with its lower port';
  return { first, last };
}

function parseNetwork(text: string): NonNullable<AllowEntry['network']> | string {
  const [address = '', prefixText, ...rest] = text.split('/');
  const usual = address.includes(':') || ipaddr.IPv4.isValidFourPartDecimal(address);
  if (!usual || address.includes('%') || !ipaddr.isValid(address) || rest.length > 0) return FORMS;
  const read = ipaddr.parse(address);
  const mapped = read.kind() === 'ipv6' && (read as ipaddr.IPv6).isIPv4MappedAddress();
  if (mapped && prefixText !== undefined) return 'the network in IPv4 notation';
  const ip = ipaddr.process(address);
  const family = ip.kind();
  const width = family === 'ipv4' ? 32 : 128;
  if (prefixText === undefined) return { family, address: ip.toString(), prefix: width };
  const prefix = /^\d{1,3}$/.test(prefixText) ? Number(prefixText) : 129;
  if (prefix > width) return `a prefix length of at most ${width}`;
  const base =
    family === 'ipv4'
      ? ipaddr.IPv4.networkAddressFromCIDR(text).toString()
      : ipaddr.IPv6.networkAddressFromCIDR(text).toString();
  // 10.0.0.5/8 is more often a slip for /32 than for 10.0.0.0/8: one of them exempts a whole company.
  if (base !== ip.toString()) return `${base}/${prefix} (or the single address ${ip.toString()})`;
  return { family, address: base, prefix };
}

function parseUser(user: string): AllowedUser | string {
  if (!USER.test(user)) return 'a user name or number, such as user:backup';
  if (!/^\d+$/.test(user)) return { user };
  return Number(user) <= MAX_UID ? { user: String(Number(user)) } : `a user id of at most ${MAX_UID}`;
}

function parseUnit(unit: string): AllowedUnit | string {
  if (!UNIT.test(unit))
    return 'a unit with its suffix .service, .scope or .slice, such as unit:backup.service';
  if (unit === '-.slice') return 'a unit; the root slice is everything (capture.mode: off)';
  const template = /^([^@]+)@\.[a-z]+$/.exec(unit);
  if (template === null) return { unit };
  const slice = `system-${template[1]!.replaceAll('-', '\\x2d')}.slice`;
  return `an instance of the template (${template[1]}@1.service), or the slice of all of them (unit:${slice})`;
}

/** A host name; undefined when the text does not look like one. */
function parseHost(text: string): AllowedHost | string | undefined {
  const [name = '', ports, ...rest] = text.toLowerCase().split(':');
  if (name.includes('*'))
    return 'a host name without wildcard: only whole names resolve to addresses; list each, or their network';
  const host = name.replace(/\.$/, '');
  if (rest.length > 0 || !HOST.test(host) || NUMERIC_END.test(host)) return undefined;
  if (ports === undefined) return { host };
  const range = parsePorts(ports);
  return typeof range === 'string' ? range : { host, ports: range };
}

/** Reads one entry; a text says what was expected instead. */
function parseEntry(text: string): AllowListEntry | string {
  const caller = /^(user|unit):(.*)$/i.exec(text);
  if (caller !== null)
    return caller[1]!.toLowerCase() === 'user' ? parseUser(caller[2]!) : parseUnit(caller[2]!);
  return parseHost(text) ?? parseDestination(text);
}

function parseDestination(text: string): AllowEntry | string {
  const port = /^tcp\/(.*)$/i.exec(text);
  if (port !== null) {
    const ports = parsePorts(port[1]!);
    return typeof ports === 'string' ? ports : { ports };
  }
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  const v4WithPort = /^([^:[\]]+):([^:]*)$/.exec(text);
  const network = parseNetwork(bracketed?.[1] ?? v4WithPort?.[1] ?? text);
  if (typeof network === 'string') return network;
  if (bracketed !== null && network.family === 'ipv4' && !bracketed[1]!.includes(':')) return FORMS;
  const portText = bracketed?.[2] ?? v4WithPort?.[2];
  if (portText === undefined) return { network };
  const ports = parsePorts(portText);
  return typeof ports === 'string' ? ports : { network, ports };
}

/** The text of an entry, as {@link parseAllowList} reads it. */
export function formatAllowEntry(entry: AllowListEntry): string {
  if ('user' in entry) return `user:${entry.user}`;
  if ('unit' in entry) return `unit:${entry.unit}`;
  const { ports } = entry;
  const portText =
    ports === undefined ? '' : ports.first === ports.last ? `${ports.first}` : `${ports.first}-${ports.last}`;
  if ('host' in entry) return portText === '' ? entry.host : `${entry.host}:${portText}`;
  const { network } = entry;
  if (network === undefined) return `tcp/${portText === '' ? '1-65535' : portText}`;
  const full = network.prefix === (network.family === 'ipv4' ? 32 : 128);
  const net = full ? network.address : `${network.address}/${network.prefix}`;
  if (portText === '') return net;
  return network.family === 'ipv6' ? `[${net}]:${portText}` : `${net}:${portText}`;
}

/** Reads an allow-list. All bad lines are reported, at most 100; with one of them, no entry should be used. */
export function parseAllowList(text: string): {
  readonly entries: readonly AllowListEntry[];
  readonly problems: readonly AllowListProblem[];
} {
  const entries = new Map<string, AllowListEntry>();
  const problems: AllowListProblem[] = [];
  const lines = text.replace(/^\uFEFF/, '').split('\n');
  for (const [index, line] of lines.entries()) {
    if (problems.length >= MAX_PROBLEMS) break;
    const content = line.replace(/#.*$/s, '').trim();
    if (content === '') continue;
    const column = line.indexOf(content) + 1;
    const entry = parseEntry(content);
    if (typeof entry === 'string') {
      problems.push({ line: index + 1, column, found: quote(content), expected: entry });
    } else if (entries.size < MAX_ALLOW_ENTRIES) {
      entries.set(formatAllowEntry(entry), entry);
    } else {
      problems.push({
        line: index + 1,
        column,
        found: quote(content),
        expected: `at most ${MAX_ALLOW_ENTRIES} entries`,
      });
      break;
    }
  }
  return { entries: [...entries.values()], problems };
}

/** Printable ASCII of what was found: the file may be anything, and this goes to a log and a terminal. */
function quote(text: string): string {
  const clean = text.slice(0, MAX_QUOTED).replace(/[^\x20-\x7e]/g, '?');
  return text.length > MAX_QUOTED ? `${clean}...` : clean;
}

/** `FILE:LINE:COLUMN: found "…", expected …`, as every message about a file of the operator. */
export function describeProblem(file: string, problem: AllowListProblem): string {
  const { line, column, found, expected } = problem;
  return `${file}:${line}:${column}: found "${found}", expected ${expected}`;
}

/**
 * Reads `capture.protect` of the configuration: destinations only, because they hold before anything could be looked
 * up. Throws a MeshError `configuration` that names the entry.
 */
export function parseProtected(texts: readonly string[]): AllowList {
  return texts.map((text) => {
    const read = parseEntry(text.trim());
    const entry = typeof read === 'string' || isDestination(read) ? read : DESTINATIONS;
    if (typeof entry !== 'string') return entry;
    const message = `capture.protect: found "${quote(text)}", expected ${entry}`;
    throw new MeshError('configuration', 'operator', message, { retry: 'safe' });
  });
}
