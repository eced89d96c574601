import { MeshError } from '../model/errors.ts';

/** Frames that move nothing, allowed in one second, and at once. */
const PER_SECOND = 20_000;
/** Every so many bytes of data pay for one more. */
const BYTES_EACH = 4096;

/** Bounds the frames by which a peer makes us work without moving data. */
export class FloodGuard {
  #tokens = PER_SECOND;
  #filledAt = performance.now();

  /** Bytes came in. */
  data(bytes: number): void {
    this.#tokens = Math.min(2 * PER_SECOND, this.#tokens + bytes / BYTES_EACH);
  }

  /** One such frame came; throws `overload` when there were too many. */
  control(): void {
    if (--this.#tokens >= 0) return;
    const now = performance.now();
    this.#tokens = Math.min(PER_SECOND, ((now - this.#filledAt) / 1000) * PER_SECOND) - 1;
    this.#filledAt = now;
    if (this.#tokens < 0) throw new MeshError('overload', 'peer', 'too many control frames');
  }
}
