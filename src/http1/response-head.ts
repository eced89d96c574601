import { listMembers } from './characters.ts';
import { type ConnectionOptions, connectionOptions } from './connection-options.ts';
import { Fields, KNOWN_MASK, known, MARKS } from './fields.ts';
import { CHUNKED, contentFields, type Framing, NO_CONTENT, OPAQUE, UNTIL_CLOSE } from './framing.ts';
import { MAX_UPGRADES } from './limits.ts';
import { HttpRefusal } from './refusal.ts';
import type { SectionScanner } from './section-scanner.ts';

/** What has to be known of a request to read its answer. */
export interface Asked {
  readonly method: string;
  /** Protocols that the request, as it was sent on, asked to switch to. */
  readonly upgrade: string | undefined;
}

/** An answer's head, valid as a whole. An immutable value that may be kept. */
export interface ResponseHead {
  /** 100–999; those above 599 mean nothing, but exist. */
  readonly status: number;
  readonly reason: string;
  /** HTTP/1.0 or HTTP/1.1. */
  readonly minor: 0 | 1;
  readonly fields: Fields;
  readonly framing: Framing;
  /** Content-Length, also where it only says what there would have been (HEAD, 304); -1 when there is none. */
  readonly contentLength: number;
  readonly connection: ConnectionOptions;
  /** The connection can be used again after this answer. */
  readonly keepAlive: boolean;
  /** 1xx other than 101: the answer itself is still to come. */
  readonly interim: boolean;
}

const SWITCHING_PROTOCOLS = 101;

/** Makes a head of what `scanner` read in answer to `asked`. Throws an {@link HttpRefusal}. */
export function responseHead(scanner: SectionScanner, asked: Asked): ResponseHead {
  const { text, marks } = scanner;
  const { firstEnd, secondEnd, minor } = scanner.line!;
  const digit = (place: number): number => text.charCodeAt(firstEnd + place) - 0x30;
  const status = digit(0) * 100 + digit(1) * 10 + digit(2);
  const fields = new Fields(text, marks);
  let connections = 0;
  for (let at = 0; at < marks.length; at += MARKS) {
    if ((marks[at + 4]! & KNOWN_MASK) === known.connection) connections++;
  }
  const connection = connectionOptions('response', fields, connections);
  const { chunked, length } = contentFields('response', minor, fields);
  if (status === SWITCHING_PROTOCOLS && !asksFor(asked, fields.get('upgrade'))) {
    throw new HttpRefusal('response', 'upgrade-unasked');
  }
  const framing = responseFraming(asked, status, chunked, length);
  const persistent = !connection.close && (minor === 1 || connection.keepAlive);
  return {
    status,
    // After the status and its space; a reason that is missing lies before that.
    reason: text.slice(firstEnd + 4, Math.max(secondEnd, firstEnd + 4)),
    minor,
    fields,
    framing,
    contentLength: length,
    connection,
    keepAlive: persistent && framing.kind !== 'close' && framing.kind !== 'opaque',
    interim: status < 200 && status !== SWITCHING_PROTOCOLS,
  };
}

/** RFC 9112, 6.3, in its order. */
function responseFraming(asked: Asked, status: number, chunked: boolean, length: number): Framing {
  if (status < 200 || status === 204) {
    // A server must not send either; a length of 0 is common, and does no harm.
    if (chunked || length > 0) throw new HttpRefusal('response', 'content-unexpected');
    return status === SWITCHING_PROTOCOLS ? OPAQUE : NO_CONTENT;
  }
  if (asked.method === 'CONNECT' && status < 300) return OPAQUE;
  if (asked.method === 'HEAD' || status === 304) return NO_CONTENT;
  if (chunked) return CHUNKED;
  return length < 0 ? UNTIL_CLOSE : { kind: 'length', length };
}

/** True when `protocol`, which a server switches to, is one of those that it was asked for. */
function asksFor(asked: Asked, protocol: string | undefined): boolean {
  if (asked.upgrade === undefined || protocol === undefined) return false;
  const wanted = protocol.toLowerCase();
  return listMembers(asked.upgrade, MAX_UPGRADES).some((one) => one.toLowerCase() === wanted);
}
