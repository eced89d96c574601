import { isAuthority } from './authority.ts';
import { consistsOf, equalsIgnoringCase, listMembers, TOKEN } from './characters.ts';
import { type ConnectionOptions, connectionOptions } from './connection-options.ts';
import { Fields, KNOWN_MASK, known, MARKS } from './fields.ts';
import { CHUNKED, contentFields, type Framing, isEmpty, NO_CONTENT } from './framing.ts';
import { type Http1Limits, MAX_UPGRADES } from './limits.ts';
import { knownMethod } from './methods.ts';
import { HttpRefusal } from './refusal.ts';
import type { SectionScanner } from './section-scanner.ts';
import { parseTarget, type TargetForm } from './target.ts';

/** A request's head, valid as a whole. An immutable value that may be kept. */
export interface RequestHead {
  readonly method: string;
  /** As it was sent. */
  readonly target: string;
  readonly form: TargetForm;
  /** Path and query for an origin server: begins with `/`, or is `*`; empty for CONNECT. */
  readonly path: string;
  /** Scheme of an absolute-form. */
  readonly scheme: 'http' | 'https' | undefined;
  /** Who is meant: the target's own authority, else Host; empty in HTTP/1.0 without Host. */
  readonly authority: string;
  /** HTTP/1.0 or HTTP/1.1. */
  readonly minor: 0 | 1;
  readonly fields: Fields;
  readonly framing: Framing;
  readonly connection: ConnectionOptions;
  /** The client may send another request on this connection. */
  readonly keepAlive: boolean;
  /** The client waits for `100 Continue` before it sends the content. */
  readonly expectsContinue: boolean;
  /** Protocols that the client would like to switch to; undefined when it does not ask, or cannot. */
  readonly upgrade: string | undefined;
  /** The client takes trailers (`TE: trailers`). */
  readonly takesTrailers: boolean;
}

/** Makes a head of what `scanner` read. Throws an {@link HttpRefusal} where the parts do not go together. */
export function requestHead(scanner: SectionScanner, limits: Http1Limits): RequestHead {
  const { text, marks } = scanner;
  const { firstEnd, secondEnd, minor } = scanner.line!;
  const method = knownMethod(text, firstEnd, limits.methods);
  if (method === undefined) throw refusal('method-unknown');
  const fields = new Fields(text, marks);

  let host = -1;
  let connections = 0;
  let upgrades = 0;
  let expectsContinue = false;
  let takesTrailers = false;
  for (let at = 0; at < marks.length; at += MARKS) {
    const index = at / MARKS;
    switch (marks[at + 4]! & KNOWN_MASK) {
      case known.host:
        if (host >= 0) throw refusal('host-repeated');
        if (!isAuthority(text, marks[at + 2]!, marks[at + 3]!, false)) throw refusal('host-invalid');
        host = index;
        break;
      case known.connection:
        connections++;
        break;
      case known.upgrade:
        upgrades++;
        break;
      case known.expect:
        // Nothing in HTTP/1.0 (RFC 9110, 10.1.1).
        if (minor === 0) break;
        if (!equalsIgnoringCase(text, marks[at + 2]!, marks[at + 3]!, '100-continue')) {
          throw refusal('expectation-unknown');
        }
        expectsContinue = true;
        break;
      case known.te:
        takesTrailers ||= /(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i.test(fields.value(index));
        break;
    }
  }
  if (host < 0 && minor === 1) throw refusal('host-missing');

  const { form, path, scheme, authority } = parseTarget(method, text.slice(firstEnd + 1, secondEnd));
  const connection = connectionOptions('request', fields, connections);
  const framing = requestFraming(method, minor, fields);
  return {
    method,
    target: form === 'origin' ? path : text.slice(firstEnd + 1, secondEnd),
    form,
    path,
    scheme,
    authority: authority ?? (host < 0 ? '' : fields.value(host)),
    minor,
    fields,
    framing,
    connection,
    keepAlive: !connection.close && (minor === 1 || connection.keepAlive),
    expectsContinue,
    upgrade: upgrades > 0 && connection.upgrade && mayUpgrade(minor, framing) ? upgradeOf(fields) : undefined,
    takesTrailers,
  };
}

function requestFraming(method: string, minor: 0 | 1, fields: Fields): Framing {
  const { chunked, length } = contentFields('request', minor, fields);
  // Parsers that know these methods read no content, others do: what follows would be taken in two ways.
  if ((chunked || length > 0) && (method === 'CONNECT' || method === 'TRACE'))
    throw refusal('content-unexpected');
  if (method === 'CONNECT') return NO_CONTENT;
  if (chunked) return CHUNKED;
  return length < 0 ? NO_CONTENT : { kind: 'length', length };
}

/**
 * Not in HTTP/1.0 (RFC 9110, 7.8), and not with content: Java's and curl's clients offer h2c with any request, and servers
 * exist (node's `upgrade` event) that take the content for bytes of the new protocol. It is an ordinary request then.
 */
function mayUpgrade(minor: 0 | 1, framing: Framing): boolean {
  return minor === 1 && isEmpty(framing);
}

/** The protocols of Upgrade: names, each perhaps with a version (RFC 9110, 7.8). */
function upgradeOf(fields: Fields): string {
  const value = fields.joined('upgrade')!;
  const protocols = listMembers(value, MAX_UPGRADES + 1);
  const valid = protocols.every((protocol) => {
    const [name = '', version, ...rest] = protocol.split('/', 3);
    return isToken(name) && (version === undefined || isToken(version)) && rest.length === 0;
  });
  if (!valid || protocols.length > MAX_UPGRADES) throw refusal('upgrade-invalid');
  return value;
}

function isToken(text: string): boolean {
  return consistsOf(text, 0, text.length, TOKEN);
}

function refusal(reason: ConstructorParameters<typeof HttpRefusal>[1]): HttpRefusal {
  return new HttpRefusal('request', reason);
}
