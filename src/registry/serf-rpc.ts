import { type Ip, parseIp } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import { encodeMap, MsgpackDecoder, type MsgValue, textOf } from './msgpack.ts';

/*
 * Serf's RPC, without I/O: requests to bytes, bytes to answers. https://www.serf.io/docs/agent/rpc.html
 * Each message is a header map, and where the command says so a body map after it.
 */

/** What follows the header of an answer: nothing, one body, or first nothing and then a body with each event. */
type AnswerShape = 'plain' | 'body' | 'stream';

export interface SerfAnswer {
  readonly seq: number;
  /** Serf's error text; empty when all is well. */
  readonly error: string;
  readonly body: ReadonlyMap<string, MsgValue> | undefined;
}

/** A member of the gossip as Serf describes it. */
export interface SerfMember {
  readonly name: string;
  readonly ip: Ip;
  readonly status: string;
  readonly tags: ReadonlyMap<string, string>;
}

/** Sequence numbers stay where every encoding of them is exact; a connection ends long before. */
const MAX_SEQ = 0xffff_ffff;

/** One connection's worth of protocol state. After `push` threw, the connection cannot be used any more. */
export class SerfCodec {
  readonly #decoder = new MsgpackDecoder();
  readonly #expected = new Map<number, AnswerShape>();
  /** Streams that were confirmed: from now on each of their headers has a body. */
  readonly #streaming = new Set<number>();
  /** Requests that were refused: an owner gives up at the first, so there are few. */
  readonly #failed = new Set<number>();
  #header: { readonly seq: number; readonly error: string } | undefined;
  #seq = 0;

  /** A request's bytes and the number that its answers will carry. */
  request(
    command: string,
    body: Readonly<Record<string, string | number>> | undefined,
    shape: AnswerShape,
  ): { readonly seq: number; readonly bytes: Uint8Array } {
    if (this.#seq >= MAX_SEQ) throw broken('out of sequence numbers');
    const seq = ++this.#seq;
    this.#expected.set(seq, shape);
    const header = encodeMap({ Command: command, Seq: seq });
    return { seq, bytes: body === undefined ? header : Buffer.concat([header, encodeMap(body)]) };
  }

  /** All answers that are complete with these bytes. Throws a MeshError of code `protocol`. */
  push(bytes: Uint8Array): SerfAnswer[] {
    const answers: SerfAnswer[] = [];
    for (const value of this.#decoder.push(bytes)) {
      if (!(value instanceof Map)) throw broken('a message is no map');
      if (this.#header !== undefined) {
        answers.push({ ...this.#header, body: value });
        this.#header = undefined;
        continue;
      }
      const seq = value.get('Seq');
      const error = value.get('Error');
      if (typeof seq !== 'number' || !(error instanceof Uint8Array))
        throw broken('a header lacks Seq or Error');
      // An agent that refuses a request for want of a key reads its body as one more request, and answers that too.
      if (this.#failed.has(seq)) continue;
      const shape = this.#expected.get(seq);
      if (shape === undefined) throw broken(`an answer to ${seq}, which was not asked`);
      const header = { seq, error: textOf(error) };
      const failed = header.error !== '';
      const hasBody = !failed && (shape === 'body' || this.#streaming.has(seq));
      if (failed) this.#failed.add(seq);
      if (shape === 'stream' && !failed) this.#streaming.add(seq);
      else this.#expected.delete(seq);
      if (hasBody) this.#header = header;
      else answers.push({ ...header, body: undefined });
    }
    return answers;
  }
}

/** The members in a body of `members` or of an event; entries that are no members are counted, not believed. */
export function readMembers(body: ReadonlyMap<string, MsgValue>): {
  members: SerfMember[];
  unreadable: number;
} {
  const list = body.get('Members');
  // Go encodes an empty list as nil.
  if (list === null) return { members: [], unreadable: 0 };
  if (!Array.isArray(list)) throw broken('an answer lacks Members');
  const members: SerfMember[] = [];
  let unreadable = 0;
  for (const entry of list) {
    const member = entry instanceof Map ? readMember(entry) : undefined;
    if (member === undefined) unreadable++;
    else members.push(member);
  }
  return { members, unreadable };
}

/** The text of a field; undefined when it is none. */
export function textField(map: ReadonlyMap<string, MsgValue>, key: string): string | undefined {
  const value = map.get(key);
  return value instanceof Uint8Array ? textOf(value) : undefined;
}

function readMember(entry: ReadonlyMap<string, MsgValue>): SerfMember | undefined {
  const name = textField(entry, 'Name');
  const status = textField(entry, 'Status');
  const address = entry.get('Addr');
  // Go encodes an empty map as nil.
  const given = entry.get('Tags') ?? new Map<string, MsgValue>();
  const ip = address instanceof Uint8Array ? readIp(address) : undefined;
  if (name === undefined || status === undefined || ip === undefined || !(given instanceof Map))
    return undefined;
  const tags = new Map<string, string>();
  for (const [key, value] of given) if (value instanceof Uint8Array) tags.set(key, textOf(value));
  return { name, ip, status, tags };
}

/** Go's net.IP: 4 or 16 bytes. */
function readIp(bytes: Uint8Array): Ip | undefined {
  if (bytes.length === 4) return parseIp(bytes.join('.'));
  if (bytes.length !== 16) return undefined;
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i]! << 8) | bytes[i + 1]!).toString(16));
  return parseIp(groups.join(':'));
}

function broken(what: string): MeshError {
  return new MeshError('protocol', 'registry', `Serf RPC: ${what}`);
}
