/** Least size of a chunk, so that many small writes share one. */
const CHUNK = 4096;

/** Bytes in order, copied in once. Its owner bounds it. */
export class ByteQueue {
  #chunks: Buffer[] = [];
  /** Index of the first chunk; the array is compacted now and then, so that shifting costs nothing. */
  #first = 0;
  /** First unread byte of the first chunk. */
  #start = 0;
  /** End of what is written in the last chunk. */
  #end = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(bytes: Uint8Array, from = 0): void {
    let at = from;
    const last = this.#chunks.length > this.#first ? this.#chunks[this.#chunks.length - 1] : undefined;
    if (last !== undefined && this.#end < last.length) {
      const take = Math.min(last.length - this.#end, bytes.length - at);
      last.set(at === 0 && take === bytes.length ? bytes : bytes.subarray(at, at + take), this.#end);
      this.#end += take;
      this.#length += take;
      at += take;
    }
    const rest = bytes.length - at;
    if (rest === 0) return;
    const chunk = Buffer.allocUnsafeSlow(Math.max(CHUNK, rest));
    chunk.set(at === 0 ? bytes : bytes.subarray(at), 0);
    this.#chunks.push(chunk);
    this.#end = rest;
    this.#length += rest;
  }

  /** The longest run of bytes at the front, at most `most`; valid until the next `push` or `skip`. */
  peek(most: number): Buffer | undefined {
    const chunk = this.#chunks[this.#first];
    if (chunk === undefined) return undefined;
    const end = this.#first === this.#chunks.length - 1 ? this.#end : chunk.length;
    return chunk.subarray(this.#start, Math.min(end, this.#start + most));
  }

  /** Drops bytes of the run that `peek` gave. */
  skip(count: number): void {
    const chunk = this.#chunks[this.#first];
    if (chunk === undefined) return;
    this.#start += count;
    this.#length -= count;
    if (this.#length === 0) this.clear();
    else if (this.#start === chunk.length) {
      this.#chunks[this.#first] = undefined as unknown as Buffer;
      this.#first++;
      this.#start = 0;
      if (this.#first === 32) {
        this.#chunks = this.#chunks.slice(32);
        this.#first = 0;
      }
    }
  }

  clear(): void {
    this.#chunks = [];
    this.#first = 0;
    this.#start = 0;
    this.#end = 0;
    this.#length = 0;
  }
}
