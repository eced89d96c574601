import { MeshError } from '../model/errors.ts';
import type { RefusalReason } from '../model/request.ts';

export type { RefusalReason } from '../model/request.ts';

/** Who wrote the message. */
export type Side = 'request' | 'response';

/** Why a message is refused, with the status that a client gets and the rule that was broken. */
export const refusals = {
  'request-line': [400, 'the request line is malformed (RFC 9112, 3)'],
  'method-unknown': [501, 'the method is not known (RFC 9110, 9.1)'],
  'target-invalid': [
    400,
    'the request target is malformed, or not of a form for this method (RFC 9112, 3.2)',
  ],
  'start-line-too-long': [414, 'the request line is too long (RFC 9112, 3)'],
  'version-unsupported': [505, 'the version is neither HTTP/1.1 nor HTTP/1.0 (RFC 9110, 15.6.6)'],
  'status-line': [502, 'the status line is malformed (RFC 9112, 4)'],
  'line-end': [400, 'a line does not end in CR LF (RFC 9112, 2.2)'],
  'field-name': [400, 'a field name is malformed, or a space stands before its colon (RFC 9112, 5.1)'],
  'field-value': [400, 'a field value holds a control character (RFC 9110, 5.5)'],
  'obs-fold': [400, 'a field goes on in the next line (RFC 9112, 5.2)'],
  'head-too-large': [431, 'the header section is too large (RFC 6585, 5)'],
  'too-many-fields': [431, 'there are too many header fields (RFC 6585, 5)'],
  'host-missing': [400, 'Host is missing (RFC 9112, 3.2)'],
  'host-repeated': [400, 'Host is there more than once (RFC 9112, 3.2)'],
  'host-invalid': [400, 'Host is malformed (RFC 9112, 3.2)'],
  'connection-invalid': [400, 'Connection is malformed, or has too many options (RFC 9110, 7.6.1)'],
  'upgrade-invalid': [400, 'Upgrade is malformed (RFC 9110, 7.8)'],
  'expectation-unknown': [417, 'Expect asks for something other than 100-continue (RFC 9110, 10.1.1)'],
  'length-invalid': [400, 'Content-Length is not a number (RFC 9112, 6.3)'],
  'length-repeated': [400, 'Content-Length is there more than once (RFC 9112, 6.3)'],
  'length-and-coding': [400, 'both Content-Length and Transfer-Encoding are there (RFC 9112, 6.1)'],
  'coding-repeated': [400, 'Transfer-Encoding is there more than once (RFC 9112, 6.1)'],
  'coding-not-chunked': [400, 'Transfer-Encoding does not end in chunked (RFC 9112, 6.3)'],
  'coding-unknown': [501, 'Transfer-Encoding has a coding other than chunked (RFC 9112, 6.1)'],
  'coding-version': [400, 'Transfer-Encoding in a message of HTTP/1.0 (RFC 9112, 6.1)'],
  'content-unexpected': [400, 'content where there must not be any (RFC 9110, 9.3.6, 9.3.8, 15.2, 15.3.5)'],
  'chunk-size': [400, 'a chunk size is malformed or too large (RFC 9112, 7.1)'],
  'chunk-extension': [400, 'a chunk extension is malformed or too long (RFC 9112, 7.1.1)'],
  'chunk-end': [400, 'a chunk is not as long as it says (RFC 9112, 7.1)'],
  'trailer-field': [400, 'a trailer field that must not be one (RFC 9110, 6.5.1)'],
  'trailers-too-large': [431, 'the trailer section is too large (RFC 6585, 5)'],
  'upgrade-unasked': [502, 'the protocol was switched without being asked to (RFC 9110, 15.2.2)'],
  'interim-last': [502, 'an interim answer says that nothing follows it (RFC 9110, 15.2)'],
  'too-many-interim': [502, 'too many interim answers (RFC 9110, 15.2)'],
  'unasked-response': [502, 'bytes of an answer that nobody asked for (RFC 9112, 9.2)'],
  incomplete: [400, 'the connection ended within a message (RFC 9112, 8)'],
} as const satisfies Readonly<Record<RefusalReason, readonly [status: number, text: string]>>;

/** Status of an agent's own answer for whatever is wrong with a server's (RFC 9110, 15.6.3). */
const BAD_GATEWAY = 502;

/** A message that is not taken. Its connection cannot be used any further: nobody knows where the next one begins. */
export class HttpRefusal extends MeshError {
  readonly reason: RefusalReason;
  /** What the client is told. */
  readonly status: number;

  constructor(side: Side, reason: RefusalReason) {
    const [status, text] = refusals[reason];
    super('protocol', side === 'request' ? 'caller' : 'callee', `${side}: ${text}`);
    this.reason = reason;
    this.status = side === 'request' ? status : BAD_GATEWAY;
  }
}
