import type { ErrorCode, MeshError } from '../model/errors.ts';
import type { TunnelTarget } from './dial.ts';
import type { OpenRequest } from './open-request.ts';
import type { TunnelSession } from './session.ts';
import type { SilenceSource, TunnelStream } from './stream.ts';

/** A stream with what it asks for, which the peer's certificate has to allow. */
export interface Wanted {
  readonly stream: TunnelStream;
  readonly request: OpenRequest;
}

/** A dial that failed without an answer is remembered for so long, in ms: the next one gets no new patience. */
const SILENCE_MEMORY = 30_000;

/** Failures of a dial that are no answer. */
const UNANSWERED: ReadonlySet<ErrorCode> = new Set(['timeout', 'unreachable', 'tunnel-lost']);

/** What a pool knows of one peer: its sessions, the one dial, and who waits for it. */
export class Peer implements SilenceSource {
  readonly target: TunnelTarget;
  readonly sessions: Set<TunnelSession> = new Set();
  queue: Wanted[] = [];
  /** When it began to dial or to back off, in ms since the epoch. */
  since = 0;
  /** No dial before this, in ms of the monotonic clock. */
  retryAt = 0;
  lastError: MeshError | undefined;
  #dialling = false;
  #failures = 0;
  /** When the sign of life became due that has not come, on the monotonic clock. */
  #silentSince: number | undefined;
  #failedAt = 0;

  constructor(target: TunnelTarget) {
    this.target = target;
  }

  /** Inside of a relay stream: another way may carry the next session. */
  get relayed(): boolean {
    return typeof this.target.via === 'function';
  }

  get dialling(): boolean {
    return this.#dialling;
  }

  /** For how long, in ms, no dial was answered. */
  get silence(): number {
    return this.#silentSince === undefined ? 0 : performance.now() - this.#silentSince;
  }

  /** A dial begins. `silence`: ms for which the peer has owed a session a sign of life already. */
  dials(silence: number): void {
    this.#dialling = true;
    this.since = Date.now();
    const now = performance.now();
    if (now - this.#failedAt > SILENCE_MEMORY) this.#silentSince = undefined;
    this.#silentSince ??= now - silence;
  }

  /** The dial is over, and there is a session. */
  opened(session: TunnelSession): void {
    this.#dialling = false;
    this.#failures = 0;
    this.retryAt = 0;
    this.#silentSince = undefined;
    this.sessions.add(session);
  }

  /** The dial is over, and there is none. */
  dialFailed(error: MeshError): void {
    this.#dialling = false;
    this.#failedAt = performance.now();
    if (!UNANSWERED.has(error.code)) this.#silentSince = undefined;
  }

  /** No dial for a while. Full jitter: callers of a peer that comes back do not all arrive at once. */
  backOff(error: MeshError, { backoffBase, backoffMax }: { backoffBase: number; backoffMax: number }): void {
    const most = Math.min(backoffMax, backoffBase * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    this.retryAt = performance.now() + Math.random() * most;
    this.lastError = error;
    this.since = Date.now();
  }
}
