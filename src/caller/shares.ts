/** The live connections of one caller; goes with the last of them. */
export class Share {
  readonly #key: string;
  readonly #shares: Map<string, Share>;
  #live = 0;

  constructor(key: string, shares: Map<string, Share>) {
    this.#key = key;
    this.#shares = shares;
  }

  get live(): number {
    return this.#live;
  }

  /** @internal for {@link Shares} */
  enter(): void {
    if (this.#live++ === 0) this.#shares.set(this.#key, this);
  }

  /** A connection is over: exactly one for each that was counted. */
  leave(): void {
    if (--this.#live === 0) this.#shares.delete(this.#key);
  }
}

/** How many connections each caller has, so that none of them can take all. Holds only callers that have some. */
export class Shares {
  readonly #shares = new Map<string, Share>();

  /** Callers with live connections. */
  get size(): number {
    return this.#shares.size;
  }

  /** Counts a connection; undefined, and nothing counted, when the caller has `most` already. */
  take(key: string, most: number): Share | undefined {
    const share = this.#shares.get(key) ?? new Share(key, this.#shares);
    if (share.live >= most) return undefined;
    share.enter();
    return share;
  }
}
