import { createHash } from 'node:crypto';
import { Packr, Unpackr } from 'msgpackr';
import { isPlainMsgpack } from './well-formed.ts';

/*
 * A cache file, without I/O.
 *
 *   offset  bytes
 *        0      8  magic "MESHFILE"
 *        8      4  format version, big endian as everything here
 *       12      4  number of records
 *       16      8  length of the records in bytes
 *       24      8  when it was written, milliseconds since the epoch
 *       32     32  SHA-256 of bytes 0–31 and the records
 *       64      …  records: 4 bytes of length, then one MessagePack value, each
 */

const MAGIC = Buffer.from('MESHFILE', 'latin1');
const FORMAT_VERSION = 1;
const HEADER_BYTES = 64;
const CHECKED_HEADER_BYTES = 32;
/** One record; a service of 20,000 instances is about 3 MiB. */
const MAX_RECORD_BYTES = 64 * 1024 * 1024;

// Plain maps, no records or extensions: any MessagePack reads it, and it reads nothing that could do more than be.
const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: true, moreTypes: false });
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  int64AsType: 'number',
  moreTypes: false,
});

/** How the records of each readable format are decoded. The version before the current one stays readable. */
const readers: Readonly<Record<number, (records: Buffer, count: number) => IterableIterator<unknown>>> = {
  1: readRecords,
};

/** Collects records into the bytes of a file. */
export class FileEncoder {
  readonly #parts: Buffer[] = [];
  #bytes = 0;
  #count = 0;

  add(record: unknown): void {
    const value = packr.pack(record);
    if (value.length > MAX_RECORD_BYTES) throw new RangeError(`a record of ${value.length} bytes`);
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(value.length);
    this.#parts.push(length, value);
    this.#bytes += 4 + value.length;
    this.#count++;
  }

  /** The parts of the file, in order. */
  finish(writtenAt: number): { readonly parts: readonly Buffer[]; readonly bytes: number } {
    const header = Buffer.alloc(HEADER_BYTES);
    MAGIC.copy(header);
    header.writeUInt32BE(FORMAT_VERSION, 8);
    header.writeUInt32BE(this.#count, 12);
    header.writeBigUInt64BE(BigInt(this.#bytes), 16);
    header.writeBigUInt64BE(BigInt(writtenAt), 24);
    const hash = createHash('sha256').update(header.subarray(0, CHECKED_HEADER_BYTES));
    for (const part of this.#parts) hash.update(part);
    hash.digest().copy(header, CHECKED_HEADER_BYTES);
    return { parts: [header, ...this.#parts], bytes: HEADER_BYTES + this.#bytes };
  }
}

/** What a file says, before anything in it is believed. `undefined` in the list: a record that is no plain data. */
interface DecodedFile {
  readonly writtenAt: number;
  readonly records: Iterable<unknown>;
}

/** Reads the bytes of a file; a text says what is wrong with it. */
export function decodeFile(file: Buffer): DecodedFile | string {
  if (file.length < HEADER_BYTES) return 'shorter than its header';
  if (!file.subarray(0, MAGIC.length).equals(MAGIC)) return 'no cache file';
  const version = file.readUInt32BE(8);
  const records = file.subarray(HEADER_BYTES);
  if (file.readBigUInt64BE(16) !== BigInt(records.length))
    return 'its length is not the one it was written with';
  const hash = createHash('sha256').update(file.subarray(0, CHECKED_HEADER_BYTES)).update(records).digest();
  if (!hash.equals(file.subarray(CHECKED_HEADER_BYTES, HEADER_BYTES))) return 'its checksum does not fit';
  const reader = readers[version];
  if (reader === undefined) return `format version ${version} cannot be read`;
  const writtenAt = Number(file.readBigUInt64BE(24));
  return { writtenAt, records: reader(records, file.readUInt32BE(12)) };
}

function* readRecords(records: Buffer, count: number): IterableIterator<unknown> {
  let at = 0;
  for (let i = 0; i < count; i++) {
    const length = at + 4 <= records.length ? records.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    if (length > MAX_RECORD_BYTES || at + 4 + length > records.length) return yield undefined;
    const bytes = records.subarray(at + 4, at + 4 + length);
    at += 4 + length;
    yield decodeRecord(bytes);
  }
}

function decodeRecord(bytes: Buffer): unknown {
  if (!isPlainMsgpack(bytes)) return undefined;
  try {
    return unpackr.unpack(bytes);
  } catch {
    return undefined;
  }
}
