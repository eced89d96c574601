import { MeshError } from '../model/errors.ts';
import { isAuthority } from './authority.ts';
import { consistsOf, TARGET } from './characters.ts';
import type { ConnectionOptions } from './connection-options.ts';
import type { FieldNames } from './field-names.ts';
import { CANONICAL, type Fields, KNOWN_MASK, type KnownField, known, MARKS } from './fields.ts';
import type { Framing } from './framing.ts';
import type { RequestHead } from './request-head.ts';
import type { ResponseHead } from './response-head.ts';

/*
 * Heads as they are sent on: HTTP/1.1, one spelling of everything that says where a message goes, where it ends and what
 * becomes of the connection, and those fields only that are meant for the next one. So whatever stands behind, and
 * however it reads what RFC 9112 leaves open, it sees the one request that was decided about.
 *
 * A head is made as a latin1 string: its length is its number of bytes, and `Buffer.write` puts it before the
 * content in one buffer. Lines that are in the usual form already are taken over in runs, not one by one.
 */

/**
 * What is changed in the fields of a message that is sent on. For what is made for each request: a literal with all the
 * properties has one shape; spreads, and properties that are there or not, cost 1.4 µs in looking up the others.
 */
export interface HeadChanges {
  /** Fields of the sender that are left out, those that `add` replaces included. */
  readonly remove?: FieldNames | undefined;
  /** Lines made by `fieldLine`. */
  readonly add?: string | undefined;
}

export interface RequestChanges extends HeadChanges {
  /** Path and query in place of the sender's. */
  readonly path?: string | undefined;
  /** Host in place of the sender's; needed where that has none (HTTP/1.0). */
  readonly authority?: string | undefined;
  /** Passes on that the sender would like to switch protocols. */
  readonly upgrade?: boolean | undefined;
  /** No other request follows on this connection. */
  readonly close?: boolean | undefined;
}

export interface ResponseChanges extends HeadChanges {
  /** How the content is delimited towards the client, where that is not as it came. */
  readonly framing?: Framing | undefined;
  /** What is said about the connection to the client; a client of HTTP/1.0 has to be told `keep-alive`. */
  readonly connection?: 'close' | 'keep-alive' | undefined;
}

/** Fields that are for one connection, or that are written anew (RFC 9110, 7.6.1). */
const notCopied: ReadonlySet<KnownField> = new Set<KnownField>([
  known.host,
  known.contentLength,
  known.transferEncoding,
  known.connection,
  known.upgrade,
  known.te,
  known.keepAlive,
  known.proxyConnection,
]);
const COPIED: readonly boolean[] = Object.values(known).map((kind) => !notCopied.has(kind));

/**
 * The head of a request for the next server, in the form for origin servers. Throws a `configuration` MeshError when the
 * changes would not make a valid request.
 */
export function requestHeadText(head: RequestHead, changes: RequestChanges): string {
  const authority = changes.authority ?? head.authority;
  if (changes.authority !== undefined || authority === '') checkAuthority(authority);
  if (changes.path !== undefined) checkPath(head, changes.path);
  const target = head.method === 'CONNECT' ? authority : (changes.path ?? head.path);
  let text = `${head.method} ${target} HTTP/1.1\r\nhost: ${authority}\r\n`;
  text += copied(head.fields, head.connection, changes, head.minor === 0);
  text += framingLine(head.framing);
  text += changes.add ?? '';
  const upgrade = changes.upgrade === true ? head.upgrade : undefined;
  if (upgrade !== undefined) text += `upgrade: ${upgrade}\r\n`;
  if (head.takesTrailers) text += 'te: trailers\r\n';
  return `${text}${connectionLine(changes.close === true, upgrade !== undefined, head.takesTrailers)}\r\n`;
}

/** The head of an answer for the client. */
export function responseHeadText(head: ResponseHead, changes: ResponseChanges): string {
  const framing = changes.framing ?? head.framing;
  let text = `HTTP/1.1 ${head.status} ${head.reason}\r\n`;
  text += copied(head.fields, head.connection, changes, false);
  if (framing.kind !== 'none') text += framingLine(framing);
  // What there would have been: HEAD and 304 alone may say it.
  else if (head.contentLength >= 0 && head.status >= 200 && head.status !== 204) {
    text += `content-length: ${head.contentLength}\r\n`;
  }
  text += changes.add ?? '';
  if (head.status === 101) {
    return `${text}upgrade: ${head.fields.get('upgrade') ?? ''}\r\nconnection: upgrade\r\n\r\n`;
  }
  if (framing.kind === 'close' || changes.connection === 'close') text += 'connection: close\r\n';
  else if (changes.connection === 'keep-alive') text += 'connection: keep-alive\r\n';
  return `${text}\r\n`;
}

/** Trailer fields for the next one: those of `trailers` that are not removed. */
export function trailerLines(trailers: Fields, changes: HeadChanges): string {
  return copied(trailers, undefined, changes, false) + (changes.add ?? '');
}

/** The field lines that are meant for the next one. */
function copied(
  fields: Fields,
  connection: ConnectionOptions | undefined,
  changes: HeadChanges,
  withoutExpect: boolean,
): string {
  const { text, marks } = fields;
  const { remove } = changes;
  const hop = connection?.fields;
  let lines = '';
  let run = -1;
  for (let at = 0; at < marks.length; at += MARKS) {
    const from = marks[at]!;
    const to = marks[at + 1]!;
    const kind = marks[at + 4]!;
    const keep =
      COPIED[kind & KNOWN_MASK] === true &&
      !(withoutExpect && (kind & KNOWN_MASK) === known.expect) &&
      remove?.includes(text, from, to) !== true &&
      hop?.includes(text, from, to) !== true;
    if (keep && (kind & CANONICAL) !== 0) {
      if (run < 0) run = from;
      continue;
    }
    if (run >= 0) lines += text.slice(run, from);
    run = -1;
    if (keep) lines += `${text.slice(from, to)}: ${text.slice(marks[at + 2], marks[at + 3])}\r\n`;
  }
  // Behind the last field stands the empty line.
  return run >= 0 ? lines + text.slice(run, text.length - 2) : lines;
}

function framingLine(framing: Framing): string {
  if (framing.kind === 'chunked') return 'transfer-encoding: chunked\r\n';
  return framing.kind === 'length' ? `content-length: ${framing.length}\r\n` : '';
}

function connectionLine(close: boolean, upgrade: boolean, te: boolean): string {
  if (!close && !upgrade && !te) return '';
  const options = [close ? 'close' : '', upgrade ? 'upgrade' : '', te ? 'te' : ''];
  return `connection: ${options.filter((option) => option !== '').join(', ')}\r\n`;
}

function checkAuthority(authority: string): void {
  if (isAuthority(authority, 0, authority.length, false)) return;
  throw new MeshError('configuration', 'agent', `no host for a request: ${JSON.stringify(authority)}`);
}

function checkPath(head: RequestHead, path: string): void {
  if (path.startsWith('/') && consistsOf(path, 0, path.length, TARGET)) return;
  if (path === '*' && head.method === 'OPTIONS') return;
  throw new MeshError('configuration', 'agent', `no path for a request: ${JSON.stringify(path)}`);
}
