import { MeshError } from '../model/errors.ts';

/*
 * What an etcd v3 server says through its JSON gateway (etcd.io, "Why gRPC gateway" and rpc.proto), without I/O: bytes in,
 * checked answers or a MeshError out. Numbers of 64 bits are texts there, byte strings are base64.
 */

/** Most bytes of one answer, or of one line of a stream: one value of the default 1.5 MiB request limit fits. */
export const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

export interface KeyValue {
  readonly key: Buffer;
  /** The revision of its last change. */
  readonly revision: bigint;
  readonly value: Buffer;
}

export interface RangeAnswer {
  readonly cluster: string;
  /** The store's revision when it was read. */
  readonly revision: bigint;
  readonly values: readonly KeyValue[];
  readonly more: boolean;
}

/** A change of one key. */
export interface KeyEvent {
  readonly removed: boolean;
  readonly key: Buffer;
  readonly revision: bigint;
  readonly value: Buffer;
}

export type WatchAnswer =
  | { readonly kind: 'created'; readonly cluster: string; readonly revision: bigint }
  | { readonly kind: 'compacted' }
  | { readonly kind: 'progress'; readonly revision: bigint }
  /** `partial`: more events of the last revision follow in the next answer. */
  | { readonly kind: 'events'; readonly events: readonly KeyEvent[]; readonly partial: boolean };

type Fields = Readonly<Record<string, unknown>>;

/** The answer to `/v3/kv/range`. */
export function readRange(text: string): RangeAnswer {
  const fields = fieldsOf(parse(text), 'an answer');
  const values = listOf(fields['kvs'], 'kvs').map((item) => keyValue(fieldsOf(item, 'kvs')));
  const { cluster, revision } = header(fields);
  return { cluster, revision, values, more: fields['more'] === true };
}

/** One line of `/v3/watch`. An error in it is thrown. */
export function readWatch(line: string): WatchAnswer {
  const fields = fieldsOf(parse(line), 'a line');
  const failure = errorIn(fields);
  if (failure !== undefined) throw new MeshError('registry', 'registry', `etcd: ${failure}`);
  const result = fieldsOf(fields['result'], 'result');
  const compacted = result['compact_revision'];
  if (compacted !== undefined && compacted !== '0') return { kind: 'compacted' };
  if (result['canceled'] === true) {
    const reason = typeof result['cancel_reason'] === 'string' ? result['cancel_reason'] : 'no reason given';
    throw new MeshError('registry', 'registry', `etcd canceled the watch: ${clip(reason)}`);
  }
  if (result['created'] === true) return { kind: 'created', ...header(result) };
  const events = listOf(result['events'], 'events').map((item): KeyEvent => {
    const event = fieldsOf(item, 'events');
    const { type } = event;
    // The default of an enumeration is left out.
    if (type !== undefined && type !== 'PUT' && type !== 'DELETE') throw nonsense('type');
    return { removed: type === 'DELETE', ...keyValue(fieldsOf(event['kv'], 'kv')) };
  });
  if (events.length === 0) return { kind: 'progress', revision: header(result).revision };
  return { kind: 'events', events, partial: result['fragment'] === true };
}

/** The answer to `/v3/auth/authenticate`: a token that goes into a header. */
export function readToken(text: string): string {
  const { token } = fieldsOf(parse(text), 'an answer');
  if (typeof token !== 'string' || !/^[\x21-\x7e]{1,8192}$/.test(token)) throw nonsense('token');
  return token;
}

/** What an answer of a status that is not 200 says. */
export function readFailure(status: number, text: string): string {
  let said: string | undefined;
  try {
    said = errorIn(fieldsOf(JSON.parse(text), 'an answer'));
  } catch {
    said = undefined;
  }
  return `etcd answered ${status}${said === undefined ? '' : `: ${said}`}`;
}

/** Cuts a stream of bytes into lines. Throws a MeshError when a line is longer than the bound. */
export class LineSplitter {
  #pieces: Buffer[] = [];
  #length = 0;

  push(bytes: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (;;) {
      const end = bytes.indexOf(0x0a, from);
      const piece = bytes.subarray(from, end === -1 ? bytes.length : end);
      this.#length += piece.length;
      if (this.#length > MAX_ANSWER_BYTES)
        throw new MeshError('protocol', 'registry', `etcd: a line has more than ${MAX_ANSWER_BYTES} bytes`);
      if (piece.length > 0) this.#pieces.push(piece);
      if (end === -1) {
        this.#compact();
        return lines;
      }
      const line = Buffer.concat(this.#pieces).toString().trim();
      this.#pieces = [];
      this.#length = 0;
      if (line !== '') lines.push(line);
      from = end + 1;
    }
  }

  /** Many small pieces, each with the memory of what it was cut from, become one now and then. */
  #compact(): void {
    if (this.#pieces.length >= 64) this.#pieces = [Buffer.concat(this.#pieces)];
  }
}

function header(fields: Fields): { readonly cluster: string; readonly revision: bigint } {
  const about = fieldsOf(fields['header'], 'header');
  const cluster = about['cluster_id'];
  return { cluster: typeof cluster === 'string' ? cluster : '', revision: revisionOf(about['revision']) };
}

function keyValue(fields: Fields): KeyValue {
  return {
    key: bytesOf(fields['key'], 'key'),
    revision: revisionOf(fields['mod_revision']),
    value: fields['value'] === undefined ? Buffer.alloc(0) : bytesOf(fields['value'], 'value'),
  };
}

function revisionOf(value: unknown): bigint {
  if (typeof value !== 'string' || !/^\d{1,19}$/.test(value)) throw nonsense('revision');
  return BigInt(value);
}

function bytesOf(value: unknown, what: string): Buffer {
  if (typeof value !== 'string') throw nonsense(what);
  return Buffer.from(value, 'base64');
}

function errorIn(fields: Fields): string | undefined {
  const { error } = fields;
  if (error === undefined) return undefined;
  if (typeof error === 'string') return clip(error);
  const message = typeof error === 'object' && error !== null && (error as Fields)['message'];
  return typeof message === 'string' ? clip(message) : 'an error without words';
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw nonsense('JSON');
  }
}

function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw nonsense(what);
  return value as Fields;
}

function listOf(value: unknown, what: string): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw nonsense(what);
  return value;
}

function nonsense(what: string): MeshError {
  return new MeshError('protocol', 'registry', `etcd: ${what} cannot be read`);
}

function clip(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 200)}…`;
}
