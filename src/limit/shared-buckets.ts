import { randomBytes } from 'node:crypto';

/** Words of a bucket: its key, and when it would be empty again. */
const WORDS = 2;
/** Buckets at once: as many keys of rate limits as one host counts apart. */
export const BUCKETS = 1 << 14;
/** The first one holds the seed of the hash. */
const SEED = 0;
/** Places where the bucket of a key may be. */
const PROBES = 8;
/** Most characters of a text that tell keys apart. */
const MAX_KEY_TEXT = 512;
/** Clocks are read before buckets: another worker may have read its own by so much later, in nanoseconds. */
const LAG = 1_000_000_000n;
/** Attempts to change a bucket that others change at the same time; then the answer is what was seen last. */
const MAX_RACES = 64;

export const SHARED_BYTES = (BUCKETS + 1) * WORDS * BigInt64Array.BYTES_PER_ELEMENT;

/** How fast a bucket empties, and how much it holds; in nanoseconds of the caller's clock. */
export interface BucketRate {
  /** Between two that come evenly. */
  readonly each: bigint;
  /** How far ahead of that one may be: `each` × (burst − 1). */
  readonly ahead: bigint;
}

/**
 * Rate limits of all workers of a host, in memory that they share: the generic cell rate algorithm (ITU-T I.371, as in ATM
 * policing), which needs one number for each key, "when would the bucket be empty", changed by compare-and-swap. Nobody
 * waits for anybody, a worker that dies holds nothing, and it makes no difference how many there are.
 *
 * Keys are hashed with a seed of the host, so that nobody can choose a text that shares its bucket with another's. When all
 * places of a key are taken, the bucket that is empty soonest gives way: an unlucky key may then have its burst once more.
 */
export class SharedBuckets {
  readonly #words: BigInt64Array;
  readonly #seed: number;

  constructor(memory: ArrayBuffer) {
    this.#words = new BigInt64Array(memory, 0, (BUCKETS + 1) * WORDS);
    const fresh = randomBytes(8).readBigInt64LE() | 1n;
    const before = Atomics.compareExchange(this.#words, SEED, 0n, fresh);
    this.#seed = Number(BigInt.asUintN(32, before === 0n ? fresh : before));
  }

  /**
   * Takes one of `key` at `now`. 0n: it was there; else after how long there will be one. What this rate cannot have
   * written is of another one, which the key had before, or of another boot of the host, and counts for nothing: nobody has
   * to wait for a rate that is in force no more.
   */
  take(key: string, { each, ahead }: BucketRate, now: bigint): bigint {
    const words = this.#words;
    const at = this.#find(this.#hash(key), now) * WORDS + 1;
    let before = Atomics.load(words, at);
    for (let race = 0; race < MAX_RACES; race++) {
      const empty = before > now && before <= now + ahead + each + LAG ? before : now;
      if (empty - now > ahead) return empty - ahead - now;
      const seen = Atomics.compareExchange(words, at, before, empty + each);
      if (seen === before) return 0n;
      before = seen;
    }
    return each;
  }

  /** The bucket of a key, which is made when there is none. */
  #find(key: bigint, now: bigint): number {
    const words = this.#words;
    const home = Number(BigInt.asUintN(32, key >> 32n)) % BUCKETS;
    for (let race = 0; race < MAX_RACES; race++) {
      let victim = -1;
      let victimKey = 0n;
      let soonest = 0n;
      for (let probe = 0; probe < PROBES; probe++) {
        const bucket = 1 + ((home + probe) % BUCKETS);
        const found = Atomics.load(words, bucket * WORDS);
        if (found === key) return bucket;
        // An empty one is as good as one that was never used; the first of them in order, so that all choose the same.
        const until = found === 0n ? 0n : Atomics.load(words, bucket * WORDS + 1);
        const idle = until <= now ? 0n : until;
        if (victim < 0 || idle < soonest) {
          victim = bucket;
          victimKey = found;
          soonest = idle;
        }
      }
      if (Atomics.compareExchange(words, victim * WORDS, victimKey, key) !== victimKey) continue;
      Atomics.store(words, victim * WORDS + 1, 0n);
      return victim;
    }
    return 1 + home;
  }

  /** 64 bits, never 0: two rounds of MurmurHash3's mixing with different seeds. */
  #hash(text: string): bigint {
    let a = this.#seed;
    let b = ~this.#seed;
    const length = Math.min(text.length, MAX_KEY_TEXT);
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      a = Math.imul(a ^ code, 0xcc9e2d51);
      a = (a << 15) | (a >>> 17);
      b = Math.imul(b ^ code, 0x1b873593);
      b = (b << 13) | (b >>> 19);
    }
    const high = finalize(a ^ b ^ length);
    const low = finalize(Math.imul(b, 5) + a) | 1;
    return (BigInt(high) << 32n) | BigInt(low >>> 0);
  }
}

/** The last step of MurmurHash3 (32 bits, public domain): every bit of the input moves every bit of the result. */
function finalize(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
