/** Inputs for each parser in an ordinary run; `npm run fuzz:nightly` sets a million. */
export const fuzzRuns = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);

/** The seed of this run, printed so that it can be run again: MESH_FUZZ_SEED. */
export function fuzzSeed(what: string): number {
  const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 0x7fffffff);
  process.stdout.write(`fuzz ${what}: MESH_FUZZ_SEED=${seed} MESH_FUZZ_RUNS=${fuzzRuns}\n`);
  return seed;
}

/** Seeded source of damage (mulberry32): fast enough for a million inputs. */
export class FuzzRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  /** A copy with some bytes changed, cut out, repeated or put in. */
  mutated(original: Buffer): Buffer {
    let bytes: Buffer = Buffer.from(original);
    for (let i = this.below(4); i >= 0; i--) {
      const at = this.below(bytes.length + 1);
      const length = this.below(12);
      const kind = this.below(6);
      if (kind <= 1 && at < bytes.length) bytes[at] = bytes[at]! ^ (1 << this.below(8));
      else if (kind === 2 && at < bytes.length) bytes[at] = this.below(256);
      else if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
      else if (kind === 4)
        bytes = Buffer.concat([bytes.subarray(0, at), this.bytes(length), bytes.subarray(at)]);
      else bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - length * 8))]);
    }
    return bytes;
  }

  /** The bytes in up to four pieces. */
  pieces(bytes: Buffer): Buffer[] {
    const pieces: Buffer[] = [];
    let at = 0;
    for (let i = this.below(4); i > 0 && at < bytes.length; i--) {
      const next = at + this.below(bytes.length - at + 1);
      pieces.push(bytes.subarray(at, next));
      at = next;
    }
    return [...pieces, bytes.subarray(at)];
  }
}
