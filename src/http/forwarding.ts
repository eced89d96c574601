import { randomFillSync } from 'node:crypto';
import { listMembers } from '../http1/characters.ts';
import { FieldNames } from '../http1/field-names.ts';
import type { Fields } from '../http1/fields.ts';
import type { RequestChanges } from '../http1/head-writer.ts';
import type { RequestHead } from '../http1/request-head.ts';
import type { NodeName, ServiceName } from '../model/service.ts';

/**
 * How often a request may pass this host. Once would be too few: servers pass Via on (nginx does), and a chain of
 * services of one host passes its agent with each of them. What goes in circles gets here soon.
 */
export const MAX_PASSES = 8;
/** Members of Via that are looked at. */
const MAX_VIA = 128;

/** A request id of the caller that is taken over: visible ASCII, no longer than anybody makes them. */
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;
/** https://www.w3.org/TR/trace-context/#traceparent-header-field-values; versions to come have more behind. */
const TRACE_PARENT =
  /^(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?$/;

/** Where a request comes from and goes to. */
export interface Passage {
  readonly node: NodeName;
  readonly service: ServiceName;
  /** Address of the caller. */
  readonly callerIp: string | undefined;
  /** It leaves the mesh: nothing is added but what tells loops, as nobody there asked for it. */
  readonly beyond?: true | undefined;
}

/** What is told onward about a request. */
export interface Forwarding {
  readonly changes: RequestChanges;
  /** Trace that the request belongs to; 32 hexadecimal digits. Undefined: it has none, and gets none. */
  readonly traceId: string | undefined;
}

/** By what has to be left out, as bits: made once. */
const X_FORWARDED_FOR = 1;
const REQUEST_ID_BIT = 2;
const TRACE = 4;
/** For the proxy, and nobody behind it. */
const PROXY_AUTHORIZATION = 8;
const removed: readonly (FieldNames | undefined)[] = Array.from({ length: 16 }, (_, bits) => {
  if (bits === 0) return undefined;
  return new FieldNames([
    ...((bits & X_FORWARDED_FOR) !== 0 ? ['x-forwarded-for'] : []),
    ...((bits & REQUEST_ID_BIT) !== 0 ? ['x-request-id'] : []),
    ...((bits & TRACE) !== 0 ? ['traceparent', 'tracestate'] : []),
    ...((bits & PROXY_AUTHORIZATION) !== 0 ? ['proxy-authorization'] : []),
  ]);
});

/** What a request is sent on with. Values are copied from fields that the codec has checked, or made here. */
export function forwarding(head: RequestHead, passage: Passage): Forwarding {
  const { node, service, callerIp } = passage;
  const { fields } = head;
  let remove = head.form === 'absolute' && fields.has('proxy-authorization') ? PROXY_AUTHORIZATION : 0;
  let add = `via: 1.${head.minor} ${node}\r\n`;
  const parent = single(fields, 'traceparent');
  let traceId = parent === undefined ? undefined : TRACE_PARENT.exec(parent)?.[1];
  if (passage.beyond === true) return { changes: changesOf(head, service, add, remove), traceId };
  if (callerIp !== undefined) {
    const before = fields.joined('x-forwarded-for');
    if (before !== undefined) remove |= X_FORWARDED_FOR;
    add += `x-forwarded-for: ${before === undefined || before === '' ? callerIp : `${before}, ${callerIp}`}\r\n`;
  }
  if (!fields.has('x-forwarded-proto')) add += 'x-forwarded-proto: http\r\n';
  if (head.authority !== '' && !fields.has('x-forwarded-host')) {
    add += `x-forwarded-host: ${head.authority}\r\n`;
  }
  if (traceId === undefined) {
    const digits = randomDigits(TRACE_ID_DIGITS + SPAN_ID_DIGITS);
    traceId = digits.slice(0, TRACE_ID_DIGITS);
    remove |= TRACE;
    // Sampled: whoever wants fewer says so in its own configuration; "not sampled" would silence everybody behind.
    add += `traceparent: 00-${traceId}-${digits.slice(TRACE_ID_DIGITS)}-01\r\n`;
  }
  const requestId = single(fields, 'x-request-id');
  if (requestId === undefined || !REQUEST_ID.test(requestId)) {
    remove |= REQUEST_ID_BIT;
    add += `x-request-id: ${parent === undefined ? traceId : randomDigits(TRACE_ID_DIGITS)}\r\n`;
  }
  return { changes: changesOf(head, service, add, remove), traceId };
}

function changesOf(head: RequestHead, service: ServiceName, add: string, remove: number): RequestChanges {
  return {
    remove: removed[remove],
    add,
    path: undefined,
    authority: head.authority === '' ? service : undefined,
    upgrade: true,
    close: undefined,
  };
}

/** True when a request has passed `node` so often that it must be going in circles (RFC 9110, 7.6.3). */
export function isLoop(head: RequestHead, node: NodeName): boolean {
  const via = head.fields.joined('via');
  if (via === undefined) return false;
  let passes = 0;
  for (const member of listMembers(via, MAX_VIA)) {
    if (member.split(' ', 2)[1] === node) passes++;
  }
  return passes >= MAX_PASSES;
}

/** The value of a field that may be there once. */
function single(fields: Fields, name: string): string | undefined {
  const index = fields.indexOf(name);
  return index < 0 || fields.indexOf(name, index + 1) >= 0 ? undefined : fields.value(index);
}

const TRACE_ID_DIGITS = 32;
const SPAN_ID_DIGITS = 16;
const RANDOM_BYTES = 16 << 10;
const random = Buffer.alloc(RANDOM_BYTES);
let used = random.length;

/** Hexadecimal digits, never all zero in practice; random bytes are asked for in bulk. */
function randomDigits(count: number): string {
  const bytes = count / 2;
  if (used + bytes > random.length) {
    randomFillSync(random);
    used = 0;
  }
  used += bytes;
  return random.toString('hex', used - bytes, used);
}
