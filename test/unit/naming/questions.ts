/** A question as a resolver sends it. `edns`: bytes that it takes; `id`, `recursion` as they stand in the header. */
export function question(
  name: string,
  type: number,
  options: {
    readonly edns?: number;
    readonly version?: number;
    readonly class?: number;
    readonly id?: number;
  } = {},
): Buffer {
  const labels = name === '' ? [] : name.split('.');
  const parts = [header(options.id ?? 0x1234, 0x0100, [1, 0, 0, options.edns === undefined ? 0 : 1])];
  for (const label of labels) parts.push(Buffer.from([label.length]), Buffer.from(label, 'latin1'));
  parts.push(Buffer.from([0]), u16(type), u16(options.class ?? 1));
  if (options.edns !== undefined)
    parts.push(
      Buffer.from([0]),
      u16(41),
      u16(options.edns),
      Buffer.from([0, options.version ?? 0, 0, 0]),
      u16(0),
    );
  return Buffer.concat(parts);
}

export function header(id: number, flags: number, counts: readonly number[]): Buffer {
  return Buffer.concat([id, flags, ...counts].map(u16));
}

function u16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}

/** One record of an answer, its data in text. */
export interface ReadRecord {
  readonly name: string;
  readonly type: number;
  readonly ttl: number;
  readonly data: string;
}

/** An answer, read by rules written down anew, so that a mistake of the writer is not repeated. */
export interface ReadAnswer {
  readonly id: number;
  readonly code: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly question: { readonly name: string; readonly type: number } | undefined;
  readonly answers: readonly ReadRecord[];
  readonly authority: readonly ReadRecord[];
  readonly additional: readonly ReadRecord[];
}

export function readAnswer(bytes: Buffer): ReadAnswer {
  let at = 12;
  const nameAt = (from: number): { readonly text: string; readonly end: number } => {
    const length = bytes.readUInt8(from);
    if (length >= 0xc0) return { text: nameAt(bytes.readUInt16BE(from) & 0x3fff).text, end: from + 2 };
    if (length === 0) return { text: '', end: from + 1 };
    const rest = nameAt(from + 1 + length);
    const label = bytes.toString('latin1', from + 1, from + 1 + length);
    return { text: rest.text === '' ? label : `${label}.${rest.text}`, end: rest.end };
  };
  const flags = bytes.readUInt16BE(2);
  let asked: ReadAnswer['question'];
  if (bytes.readUInt16BE(4) === 1) {
    const { text, end } = nameAt(at);
    asked = { name: text, type: bytes.readUInt16BE(end) };
    at = end + 4;
  }
  const records = (count: number): ReadRecord[] =>
    Array.from({ length: count }, () => {
      const { text, end } = nameAt(at);
      const type = bytes.readUInt16BE(end);
      const ttl = bytes.readUInt32BE(end + 4);
      const size = bytes.readUInt16BE(end + 8);
      const from = end + 10;
      at = from + size;
      return { name: text, type, ttl, data: dataText(type, from, size) };
    });
  const dataText = (type: number, from: number, size: number): string => {
    const data = bytes.subarray(from, from + size);
    if (type === 1) return data.join('.');
    if (type === 28) return (data.toString('hex').match(/.{4}/g) ?? []).join(':');
    if (type === 33) return `${bytes.readUInt16BE(from + 4)} ${nameAt(from + 6).text}`;
    if (type === 12) return nameAt(from).text;
    if (type === 6) {
      const primary = nameAt(from);
      const mailbox = nameAt(primary.end);
      return `${primary.text} ${mailbox.text} ${bytes.readUInt32BE(mailbox.end + 16)}`;
    }
    return data.toString('hex');
  };
  const answers = records(bytes.readUInt16BE(6));
  const authority = records(bytes.readUInt16BE(8));
  const additional = records(bytes.readUInt16BE(10));
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes after the last record`);
  return {
    id: bytes.readUInt16BE(0),
    code: flags & 0xf,
    authoritative: (flags & 0x0400) !== 0,
    truncated: (flags & 0x0200) !== 0,
    question: asked,
    answers,
    authority,
    additional,
  };
}
