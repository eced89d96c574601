/** Least size of a chunk, so that many small writes share one. */
const SMALL = 4096;
/** Size of the chunks for everything larger; these are used again, because bulk data would keep the collector busy. */
const LARGE = 64 * 1024;
/** Large chunks kept for later, over all queues of the process: 4 MiB. */
const MAX_FREE = 64;
const free: Buffer[] = [];

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
    while (at < bytes.length) {
      let chunk = this.#chunks.length > this.#first ? this.#chunks[this.#chunks.length - 1]! : undefined;
      if (chunk === undefined || this.#end === chunk.length) {
        chunk =
          bytes.length - at <= SMALL
            ? Buffer.allocUnsafeSlow(SMALL)
            : (free.pop() ?? Buffer.allocUnsafeSlow(LARGE));
        this.#chunks.push(chunk);
        this.#end = 0;
      }
      const take = Math.min(chunk.length - this.#end, bytes.length - at);
      chunk.set(at === 0 && take === bytes.length ? bytes : bytes.subarray(at, at + take), this.#end);
      this.#end += take;
      this.#length += take;
      at += take;
    }
  }

  /** The longest run of bytes at the front, at most `most`; valid until `skip`. */
  peek(most: number): Uint8Array | undefined {
    const chunk = this.#chunks[this.#first];
    if (chunk === undefined) return undefined;
    const end = this.#first === this.#chunks.length - 1 ? this.#end : chunk.length;
    return new Uint8Array(chunk.buffer, chunk.byteOffset + this.#start, Math.min(end - this.#start, most));
  }

  /** Drops bytes of the run that `peek` gave; a chunk that is empty then may be used by anybody. */
  skip(count: number): void {
    const chunk = this.#chunks[this.#first];
    if (chunk === undefined) return;
    this.#start += count;
    this.#length -= count;
    if (this.#length > 0 && this.#start < chunk.length) return;
    if (chunk.length === LARGE && free.length < MAX_FREE) free.push(chunk);
    if (this.#length === 0) {
      this.clear();
      return;
    }
    this.#first++;
    this.#start = 0;
    if (this.#first < 32) return;
    this.#chunks = this.#chunks.slice(this.#first);
    this.#first = 0;
  }

  /** Drops everything. Its chunks are not used again: a view of one may still be in its owner's hands. */
  clear(): void {
    this.#chunks = [];
    this.#first = 0;
    this.#start = 0;
    this.#end = 0;
    this.#length = 0;
  }
}
