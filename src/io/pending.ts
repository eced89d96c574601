/** Small writes that follow each other are gathered in chunks of this size, so that they go out with one call. */
const GATHER_BYTES = 16 << 10;

/** Bytes that wait to go out, in order. Copies what it is given. */
export class PendingBytes {
  #chunks: { readonly bytes: Uint8Array; end: number }[] = [];
  /** Where the first chunk's unsent bytes begin. */
  #start = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(bytes: Uint8Array): void {
    this.#length += bytes.length;
    const last = this.#chunks.at(-1);
    if (last !== undefined && bytes.length <= last.bytes.length - last.end) {
      last.bytes.set(bytes, last.end);
      last.end += bytes.length;
      return;
    }
    // The first chunk is as long as its bytes: mostly it is the only one. What follows a blocked write comes in series.
    const size = last === undefined ? bytes.length : Math.max(bytes.length, GATHER_BYTES);
    const copy = Buffer.allocUnsafeSlow(size);
    copy.set(bytes);
    this.#chunks.push({ bytes: copy, end: bytes.length });
  }

  /** The bytes to send next; empty when there are none. */
  head(): Uint8Array {
    const first = this.#chunks[0];
    return first === undefined ? NOTHING : first.bytes.subarray(this.#start, first.end);
  }

  /** `count` bytes of the head have gone out. */
  consume(count: number): void {
    const first = this.#chunks[0];
    if (first === undefined) return;
    this.#length -= count;
    this.#start += count;
    if (this.#start < first.end) return;
    this.#chunks.shift();
    this.#start = 0;
  }

  clear(): void {
    this.#chunks = [];
    this.#start = 0;
    this.#length = 0;
  }
}

const NOTHING = new Uint8Array(0);
