/** Least that may be under way: keeps both processes busy on a path without delay. */
export const MIN_UNDER_WAY: number = 256 * 1024;
/** Data between two markers, at least; with a higher limit, an eighth of it. */
const MARK_EVERY = 64 * 1024;
/** Markers under way at once. */
const MAX_MARKS = 16;
/** After this the least round trip is measured afresh, in ms: routes change. */
const MIN_RTT_LIFE = 30_000;
/** Rate samples without a quarter more rate, after which the path is taken to be full: about three round trips. */
const FULL_SAMPLES = 24;

interface Mark {
  readonly token: bigint;
  /** Bytes sent before it. */
  readonly sent: number;
  readonly time: number;
  /** What was confirmed when it left, and when that was: the rate is measured from there. */
  readonly acked: number;
  readonly ackedTime: number;
  /** Left while so little was under way that nothing can have queued. */
  readonly clean: boolean;
}

/**
 * How much data a session keeps under way, after the manner of BBR: PINGs between the data tell when the peer has read
 * it, which gives delivery rate and least round trip. Without this, kernel buffers of some megabytes fill and every
 * small message waits behind them. Times are milliseconds of a monotonic clock.
 */
export class Pacer {
  #sent = 0;
  #acked = 0;
  #lastAckTime = 0;
  #marks: Mark[] = [];
  #token = 0n;
  #markedSent = 0;
  #markedTime = Number.NEGATIVE_INFINITY;
  #minRtt = 0;
  #minRttTime = 0;
  #rtt: number | undefined;
  /** Bytes per millisecond. */
  #rate = 0;
  #growing = true;
  #flatSamples = 0;
  #limited = false;
  /** While the least round trip is measured afresh, nothing may queue. */
  #probing = false;

  /** Newest round trip; undefined before the first. */
  get rtt(): number | undefined {
    return this.#rtt;
  }

  /** Least round trip; undefined before the first. */
  get minRtt(): number | undefined {
    return this.#rtt === undefined ? undefined : this.#minRtt;
  }

  /** Bytes sent and not yet known to be read by the peer. */
  get underWay(): number {
    return this.#sent - this.#acked;
  }

  get limit(): number {
    if (this.#probing) return MIN_UNDER_WAY;
    return Math.max(MIN_UNDER_WAY, Math.floor(this.#rate * this.#minRtt * (this.#growing ? 2 : 1.25)));
  }

  /** Bytes that bulk data may still add; 0 or less: none until `acked`. */
  room(): number {
    const room = this.limit - this.underWay;
    if (room <= 0) this.#limited = true;
    return room;
  }

  sent(bytes: number): void {
    this.#sent += bytes;
  }

  /** True when a marker should follow the data just sent. */
  get markDue(): boolean {
    const since = this.#sent - this.#markedSent;
    return since >= MARK_EVERY && this.#marks.length < MAX_MARKS && since >= this.limit / 8;
  }

  get markPending(): boolean {
    return this.#marks.length > 0;
  }

  /** When the oldest marker left that is not answered; undefined when all are. */
  get owedSince(): number | undefined {
    return this.#marks[0]?.time;
  }

  /** When the last marker left. */
  get markedTime(): number {
    return this.#markedTime;
  }

  /** A marker leaves now; returns the token of its PING. */
  mark(now: number): bigint {
    if (this.#marks.length >= MAX_MARKS) this.#marks.shift();
    const idle = this.#marks.length === 0;
    this.#token++;
    this.#marks.push({
      token: this.#token,
      sent: this.#sent,
      time: now,
      acked: this.#acked,
      ackedTime: idle ? now : this.#lastAckTime,
      clean: this.underWay <= MIN_UNDER_WAY,
    });
    this.#markedSent = this.#sent;
    this.#markedTime = now;
    return this.#token;
  }

  /** A PONG came; false when nobody asked for it. It also confirms every marker before its own. */
  acked(token: bigint, now: number): boolean {
    const at = this.#marks.findIndex((mark) => mark.token === token);
    const mark = this.#marks[at];
    if (mark === undefined) return false;
    this.#marks.splice(0, at + 1);
    const rtt = Math.max(0.001, now - mark.time);
    this.#rtt = rtt;
    this.#acked = mark.sent;
    this.#lastAckTime = now;
    this.#learnRtt(rtt, mark.clean, now);
    const delivered = mark.sent - mark.acked;
    if (delivered >= MARK_EVERY) this.#learnRate(delivered / Math.max(rtt, now - mark.ackedTime));
    return true;
  }

  #learnRtt(rtt: number, clean: boolean, now: number): void {
    if (this.#minRtt === 0 || rtt <= this.#minRtt || (this.#probing && clean)) {
      this.#minRtt = rtt;
      this.#minRttTime = now;
      this.#probing = false;
    } else if (now - this.#minRttTime > MIN_RTT_LIFE) this.#probing = true;
  }

  #learnRate(rate: number): void {
    if (rate >= this.#rate * 1.25) {
      this.#flatSamples = 0;
      this.#growing = true;
    } else if (this.#limited && ++this.#flatSamples >= FULL_SAMPLES) this.#growing = false;
    // The best of late samples. What the owner did not fill says nothing against the path.
    this.#rate = Math.max(rate, this.#limited ? this.#rate * 0.98 : this.#rate);
    this.#limited = false;
  }
}
