/*
 * DNS messages (RFC 1035, 6891), without I/O: one question in, the bytes of one answer out. A codec of our own because
 * the question must come back byte for byte (resolvers draw the case of letters, and compare), owner names are pointers to
 * it, and what is read is bounded by one walk over the labels of one name.
 */

/** Record types that are known here (IANA "Resource Record (RR) TYPEs"). */
export const recordTypes = { a: 1, soa: 6, ptr: 12, aaaa: 28, srv: 33, opt: 41, any: 255 } as const;
/** Response codes (IANA "DNS RCODEs"). */
export const responseCodes = {
  ok: 0,
  formatError: 1,
  nameError: 3,
  notImplemented: 4,
  refused: 5,
  badVersion: 16,
} as const;

/** Name of the code in the header of an answer, as dig writes it. */
export function responseName(code: number): string {
  return ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'][code] ?? 'OTHER';
}

const HEADER_BYTES = 12;
/** Longest name on the wire, and longest label (RFC 1035, 2.3.4). */
export const MAX_NAME_BYTES = 255;
const MAX_LABEL_BYTES = 63;
/** Records after the question that are looked at; a query has one or two (EDNS, a signature). */
const MAX_EXTRA_RECORDS = 8;
const CLASS_IN = 1;
const CLASS_ANY = 255;
/** A pointer to the question's name, which always follows the header. */
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES;
/** What answers without EDNS must fit into over UDP (RFC 1035, 4.2.1). */
export const PLAIN_UDP_BYTES = 512;
/** Most bytes of an answer over UDP: never fragmented on any link (DNS flag day 2020). */
const MAX_UDP_BYTES = 1232;
/** Most bytes of an answer over TCP. */
export const MAX_TCP_BYTES = 65_535;
const OPT_BYTES = 11;

const FLAG_RESPONSE = 0x8000;
const FLAG_AUTHORITATIVE = 0x0400;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;

/** A question that can be answered. */
export interface Query {
  /** Labels of the name in lower case, without the root. Bytes that are no ASCII are characters of their own. */
  readonly labels: readonly string[];
  readonly type: number;
  /** Bytes that the asker takes over UDP. */
  readonly udpBytes: number;
}

/** What {@link readQuery} makes of a message. */
export type Reading =
  /** No query: nothing may be sent back, or two servers could answer each other for ever. */
  | { readonly kind: 'ignore' }
  | { readonly kind: 'refuse'; readonly code: number; readonly envelope: Envelope }
  | { readonly kind: 'query'; readonly query: Query; readonly envelope: Envelope };

/** What an answer repeats of the message that it answers. */
interface Envelope {
  readonly message: Uint8Array;
  /** End of the question, which is repeated; that of the header when it cannot be read. */
  readonly questionEnd: number;
  readonly edns: boolean;
}

/** Reads a message of unknown origin. Never throws; its work is bounded by a name and a few records. */
export function readQuery(message: Uint8Array): Reading {
  if (message.length < HEADER_BYTES) return { kind: 'ignore' };
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const flags = view.getUint16(2);
  if ((flags & FLAG_RESPONSE) !== 0) return { kind: 'ignore' };
  const bare: Envelope = { message, questionEnd: HEADER_BYTES, edns: false };
  const refuse = (code: number, envelope: Envelope = bare): Reading => ({ kind: 'refuse', code, envelope });
  if ((flags & 0x7800) !== 0) return refuse(responseCodes.notImplemented);
  if (view.getUint16(4) !== 1) return refuse(responseCodes.formatError);

  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (;;) {
    const length = message[at];
    // A pointer has nothing before it to point to here.
    if (length === undefined || length > MAX_LABEL_BYTES) return refuse(responseCodes.formatError);
    at++;
    if (length === 0) break;
    if (at + length >= message.length || at + length - HEADER_BYTES >= MAX_NAME_BYTES)
      return refuse(responseCodes.formatError);
    labels.push(lowerCase(message.subarray(at, at + length)));
    at += length;
  }
  if (at + 4 > message.length) return refuse(responseCodes.formatError);
  const type = view.getUint16(at);
  const asked = view.getUint16(at + 2);
  const questionEnd = at + 4;

  const records = view.getUint16(6) + view.getUint16(8) + view.getUint16(10);
  const options = records > MAX_EXTRA_RECORDS ? 'malformed' : readOptions(view, questionEnd, records);
  if (options === 'malformed') return refuse(responseCodes.formatError);
  const envelope: Envelope = { message, questionEnd, edns: options !== undefined };
  if (options !== undefined && options.version > 0) return refuse(responseCodes.badVersion, envelope);
  if (asked !== CLASS_IN && asked !== CLASS_ANY) return refuse(responseCodes.refused, envelope);
  const udpBytes =
    options === undefined
      ? PLAIN_UDP_BYTES
      : Math.min(Math.max(options.payload, PLAIN_UDP_BYTES), MAX_UDP_BYTES);
  return { kind: 'query', query: { labels, type, udpBytes }, envelope };
}

/** The OPT record among those after the question; names in there may be pointers, which are stepped over. */
function readOptions(
  view: DataView,
  from: number,
  records: number,
): { readonly payload: number; readonly version: number } | undefined | 'malformed' {
  let at = from;
  let found: { readonly payload: number; readonly version: number } | undefined;
  for (let i = 0; i < records; i++) {
    const start = at;
    for (;;) {
      if (at >= view.byteLength || at - start > MAX_NAME_BYTES) return 'malformed';
      const length = view.getUint8(at);
      at += length >= 0xc0 ? 2 : 1 + length;
      if (length === 0 || length >= 0xc0) break;
      if (length > MAX_LABEL_BYTES) return 'malformed';
    }
    if (at + 10 > view.byteLength) return 'malformed';
    if (view.getUint16(at) === recordTypes.opt) {
      if (found !== undefined || at !== start + 1) return 'malformed';
      found = { payload: view.getUint16(at + 2), version: view.getUint8(at + 5) };
    }
    at += 10 + view.getUint16(at + 8);
    if (at > view.byteLength) return 'malformed';
  }
  return found;
}

/** ASCII only, as DNS compares. */
function lowerCase(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte);
  return text;
}

/** Owner of a record: the name that was asked for, or another one by its labels. */
export type Owner = 'question' | readonly string[];

/** What answers are written into, one at a time: an answer is held for as long as its reader is slow, at its own size. */
const scratch = Buffer.allocUnsafeSlow(MAX_TCP_BYTES);

/**
 * The bytes of one answer, from the constructor to {@link finish} without another one in between. A record that does not fit is not written: in the answer section that makes the whole answer
 * truncated, in the additional section it is left out.
 */
export class AnswerWriter {
  readonly #bytes = scratch;
  readonly #limit: number;
  readonly #envelope: Envelope;
  readonly #counts = { answer: 0, authority: 0, additional: 0 };
  #at: number;
  #truncated = false;

  /** `limit`: most bytes of the whole answer, at most {@link MAX_TCP_BYTES}. */
  constructor(envelope: Envelope, limit: number) {
    const { message, questionEnd, edns } = envelope;
    this.#envelope = envelope;
    this.#bytes.set(message.subarray(0, questionEnd));
    this.#at = questionEnd;
    this.#limit = edns ? limit - OPT_BYTES : limit;
  }

  /** `data` writes the record's data and returns where it ends. */
  record(
    section: 'answer' | 'authority' | 'additional',
    owner: Owner,
    type: number,
    ttl: number,
    size: number,
    data: (bytes: Buffer, at: number) => void,
  ): void {
    const ownerBytes = owner === 'question' ? 2 : nameBytes(owner);
    if (this.#truncated) return;
    if (this.#at + ownerBytes + 10 + size > this.#limit) {
      if (section === 'answer') this.#truncate();
      return;
    }
    let at = this.#at;
    if (owner === 'question') at = this.#bytes.writeUInt16BE(POINTER_TO_QUESTION, at);
    else at = writeName(this.#bytes, at, owner);
    at = this.#bytes.writeUInt16BE(type, at);
    at = this.#bytes.writeUInt16BE(CLASS_IN, at);
    at = this.#bytes.writeUInt32BE(ttl, at);
    at = this.#bytes.writeUInt16BE(size, at);
    data(this.#bytes, at);
    this.#at = at + size;
    this.#counts[section]++;
  }

  /** The finished message, in memory of its own. */
  finish(code: number, authoritative: boolean): Buffer {
    const { message, questionEnd, edns } = this.#envelope;
    if (edns) this.#writeOptions(code);
    const recursion = (message[2]! << 8) & FLAG_RECURSION_DESIRED;
    // Whoever asks through a stub resolver takes this for its recursive server.
    const flags =
      FLAG_RESPONSE |
      FLAG_RECURSION_AVAILABLE |
      recursion |
      (authoritative ? FLAG_AUTHORITATIVE : 0) |
      (this.#truncated ? FLAG_TRUNCATED : 0) |
      (code & 0xf);
    this.#bytes.writeUInt16BE(flags, 2);
    this.#bytes.writeUInt16BE(questionEnd > HEADER_BYTES ? 1 : 0, 4);
    this.#bytes.writeUInt16BE(this.#counts.answer, 6);
    this.#bytes.writeUInt16BE(this.#counts.authority, 8);
    this.#bytes.writeUInt16BE(this.#counts.additional + (edns ? 1 : 0), 10);
    return Buffer.from(this.#bytes.subarray(0, this.#at));
  }

  #truncate(): void {
    this.#truncated = true;
    this.#at = this.#envelope.questionEnd;
    this.#counts.answer = this.#counts.authority = this.#counts.additional = 0;
  }

  #writeOptions(code: number): void {
    let at = this.#bytes.writeUInt8(0, this.#at);
    at = this.#bytes.writeUInt16BE(recordTypes.opt, at);
    at = this.#bytes.writeUInt16BE(MAX_UDP_BYTES, at);
    at = this.#bytes.writeUInt32BE((code >> 4) << 24, at);
    this.#at = this.#bytes.writeUInt16BE(0, at);
  }
}

/** Bytes of a name on the wire, uncompressed. */
export function nameBytes(labels: readonly string[]): number {
  return labels.reduce((sum, label) => sum + 1 + label.length, 1);
}

/** Writes a name uncompressed; returns where it ends. */
export function writeName(bytes: Buffer, at: number, labels: readonly string[]): number {
  let end = at;
  for (const label of labels) {
    end = bytes.writeUInt8(label.length, end);
    end += bytes.write(label, end, 'latin1');
  }
  return bytes.writeUInt8(0, end);
}
