import { type ErrorCode, MeshError } from '../model/errors.ts';
import { protocolError, type ResetBody } from './frame.ts';
import { decodeOpen, type OpenRequest } from './open-request.ts';
import type { TunnelStream } from './stream.ts';

/** Stream numbers are used up here; a session then drains. */
const LAST_STREAM = 2 ** 31;

/** A RESET for a stream that nobody was offered. */
export function refusal(code: ErrorCode, detail: string): ResetBody {
  return { code, delivered: false, detail };
}

/** The streams of one session, and the numbers that both sides have used. The dialler's are odd. */
export class StreamTable {
  readonly #streams = new Map<number, TunnelStream>();
  readonly #offered = new Set<TunnelStream>();
  readonly #parity: 0 | 1;
  readonly #maxPeerStreams: number;
  #next: number;
  #lastOfPeer = 0;
  #own = 0;
  #ofPeer = 0;

  constructor(role: 'dialler' | 'acceptor', maxPeerStreams: number) {
    this.#parity = role === 'dialler' ? 1 : 0;
    this.#next = role === 'dialler' ? 1 : 2;
    this.#maxPeerStreams = maxPeerStreams;
  }

  /** Streams of both sides. */
  get size(): number {
    return this.#streams.size;
  }

  /** Streams that we opened. */
  get own(): number {
    return this.#own;
  }

  /** True when no number of ours is left. */
  get usedUp(): boolean {
    return this.#next >= LAST_STREAM;
  }

  /** Highest number that the peer has used. */
  get lastOfPeer(): number {
    return this.#lastOfPeer;
  }

  /** Enters a stream of ours; returns its number. */
  add(stream: TunnelStream): number {
    const id = this.#next;
    this.#next += 2;
    this.#own++;
    this.#streams.set(id, stream);
    return id;
  }

  /** The peer uses a number: always in rising order, and one of its own. */
  takeNumber(id: number): void {
    if (this.#isOwn(id) || id <= this.#lastOfPeer) throw protocolError(`OPEN of stream ${id}`);
    this.#lastOfPeer = id;
  }

  /** Reads the body of an OPEN: what the peer asks for, or why it gets no stream. */
  judge(body: Buffer): OpenRequest | ResetBody {
    if (this.#ofPeer >= this.#maxPeerStreams) return refusal('overload', 'too many streams');
    try {
      return decodeOpen(body);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      return refusal(error.code, error.message);
    }
  }

  /** Enters a stream of the peer, which its owner has yet to accept. */
  offer(id: number, stream: TunnelStream): void {
    this.#streams.set(id, stream);
    this.#ofPeer++;
    this.#offered.add(stream);
  }

  /** The owner accepted an offered stream. */
  accepted(stream: TunnelStream): void {
    this.#offered.delete(stream);
  }

  /** The live stream of this number; undefined when it is gone; an error when it never was. */
  find(id: number): TunnelStream | undefined {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      const used = this.#isOwn(id) ? id < this.#next : id <= this.#lastOfPeer;
      if (id === 0 || !used) throw protocolError(`frame for stream ${id}, which was never opened`);
    }
    return stream;
  }

  /** False when the stream was not in the table any more. */
  remove(stream: TunnelStream): boolean {
    if (!this.#streams.delete(stream.id)) return false;
    this.#offered.delete(stream);
    if (this.#isOwn(stream.id)) this.#own--;
    else this.#ofPeer--;
    return true;
  }

  /** Streams offered before `time` that nobody has accepted. */
  overdue(time: number): TunnelStream[] {
    return [...this.#offered].filter(({ offeredAt }) => offeredAt < time);
  }

  /** Streams of ours above the last that the peer will serve. */
  unserved(last: number): TunnelStream[] {
    return [...this.#streams.values()].filter(({ id }) => this.#isOwn(id) && id > last);
  }

  all(): TunnelStream[] {
    return [...this.#streams.values()];
  }

  #isOwn(id: number): boolean {
    return (id & 1) === this.#parity;
  }
}
