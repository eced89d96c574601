/** Tells for how long nothing has been said, from looks at how much has been. Costs nothing between them. */
export class Silence {
  #bytes = Number.NaN;
  #since = 0;

  /** Milliseconds since the look that saw another number. `now` never goes back. */
  at(now: number, bytes: number): number {
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#since = now;
    }
    return now - this.#since;
  }
}

/** Looks in the time that silence may last: it is noticed later than it should be by no more than a look. */
const LOOKS = 4;

/** Calls `ended` when `bytes` has not changed for so long; the answer takes that back. */
export function whenSilent(
  milliseconds: number,
  bytes: () => number,
  after: (milliseconds: number, expired: () => void) => () => void,
  ended: () => void,
): () => void {
  const silence = new Silence();
  const look = () => {
    if (silence.at(performance.now(), bytes()) >= milliseconds) ended();
    else again = after(milliseconds / LOOKS, look);
  };
  silence.at(performance.now(), bytes());
  let again = after(milliseconds / LOOKS, look);
  return () => again();
}
