import { endpointKey } from '../model/address.ts';
import { type ErrorCode, MeshError } from '../model/errors.ts';
import { grants, type PeerIdentity } from '../model/peer.ts';
import type { NodeName } from '../model/service.ts';
import type { TunnelContext } from './context.ts';
import type { TunnelCredentials } from './credentials.ts';
import { dialTunnel, type TunnelTarget } from './dial.ts';
import type { SessionState } from './lifecycle.ts';
import { encodeOpen, type OpenRequest } from './open-request.ts';
import { Peer, type Wanted } from './peer.ts';
import { VIA_RELAY } from './remote-address.ts';
import type { SessionEvents, TunnelSession } from './session.ts';
import { DOUBT_AFTER, TunnelStream } from './stream.ts';

/** Streams of one peer that wait for its dial. */
const MAX_QUEUED = 8192;
/** A session that shows another epoch makes older ones answer within this, in ms. */
const PROBE_TIMEOUT = 2000;
/** A session that is lost sooner than this counts as a failed dial, in ms. */
const FLAP = 1000;
/** One that owes it for this long is lost, in ms. */
const LOST_AFTER = 2000;

/** One line of `mesh-node status`, and of the metrics. */
export interface TunnelStats {
  readonly node: NodeName;
  readonly key: string;
  readonly state: SessionState | 'dialling' | 'back-off';
  /** Milliseconds; undefined before the first PONG. */
  readonly rtt: number | undefined;
  readonly streams: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Where the peer is: `address:port`, or `via relay`. */
  readonly address: string;
  /** When it came to this state or, of a session, was made; milliseconds since the epoch. */
  readonly since: number;
}

/** What the owner of a pool is told. */
export interface PoolEvents {
  /** A dialled peer opens a stream. */
  stream: SessionEvents['stream'];
  /** A dial is over. */
  dialled?(outcome: 'ok' | ErrorCode): void;
}

/** The tunnels that this worker dials: one session for each peer, made when needed. */
export class TunnelPool {
  readonly #context: TunnelContext;
  readonly #credentials: TunnelCredentials;
  readonly #events: PoolEvents;
  readonly #peers = new Map<string, Peer>();
  #tunnels = 0;
  #draining: (() => void)[] | undefined;

  /** `events.stream` is for streams that a dialled peer opens; without it they are refused. */
  constructor(context: TunnelContext, credentials: TunnelCredentials, events: Partial<PoolEvents> = {}) {
    this.#context = context;
    this.#credentials = credentials;
    this.#events = { stream: (_open, stream) => stream.reset('denied'), ...events };
  }

  /**
   * A stream to `target`, at once: what is written waits until the session is up. When there is none to be had, the
   * stream closes with `delivered: false`; so it does, as `denied`, when the peer's certificate does not grant what the
   * request is for. Throws a RangeError when `request` is too long for an OPEN frame.
   */
  open(target: TunnelTarget, request: OpenRequest): TunnelStream {
    const peer = this.#peer(target);
    const stream = TunnelStream.outgoing(encodeOpen(request), this.#defer, peer);
    const session = usable(peer);
    if (this.#draining !== undefined)
      this.#failLater(stream, new MeshError('draining', 'agent', 'the agent stops'));
    else if (session !== undefined && session.silence < DOUBT_AFTER)
      this.#adopt(session, { stream, request });
    else this.#openAnew(peer, session, { stream, request });
    return stream;
  }

  /** A peer was seen with this epoch (in a tunnel that it dialled): older sessions with it must answer, or are lost. */
  seen(node: NodeName, epoch: bigint): void {
    for (const peer of this.#peers.values()) {
      if (peer.target.node !== node) continue;
      for (const session of peer.sessions) if (session.peerEpoch !== epoch) session.probe(PROBE_TIMEOUT);
    }
  }

  /** Opens nothing new; resolves when the live streams are done. */
  drain(): Promise<void> {
    const done = new Promise<void>((resolve) => {
      this.#draining ??= [];
      this.#draining.push(resolve);
    });
    const error = new MeshError('draining', 'agent', 'the agent stops');
    for (const peer of this.#peers.values()) {
      this.#failQueue(peer, error);
      for (const session of [...peer.sessions]) session.drain();
    }
    this.#drained();
    return done;
  }

  /** Ends everything at once. */
  close(): void {
    this.#draining ??= [];
    for (const peer of this.#peers.values()) {
      this.#failQueue(peer, new MeshError('draining', 'agent', 'the agent stops'));
      for (const session of [...peer.sessions]) session.close('draining', 'the agent stops');
    }
    this.#drained();
  }

  stats(): TunnelStats[] {
    const now = performance.now();
    return [...this.#peers.values()].flatMap((peer) => {
      const { node, key, via } = peer.target;
      const address = typeof via === 'function' ? VIA_RELAY : endpointKey(via);
      const { since } = peer;
      const lines: TunnelStats[] = [...peer.sessions].map((session) => ({
        node,
        key,
        state: session.state,
        rtt: session.rtt,
        streams: session.streamCount,
        bytesIn: session.bytesIn,
        bytesOut: session.bytesOut,
        address,
        since: session.since,
      }));
      const none = { node, key, address, since, rtt: undefined, bytesIn: 0, bytesOut: 0 };
      if (peer.dialling) lines.push({ ...none, state: 'dialling', streams: peer.queue.length });
      else if (now < peer.retryAt) lines.push({ ...none, state: 'back-off', streams: 0 });
      return lines;
    });
  }

  #peer(target: TunnelTarget): Peer {
    const known = this.#peers.get(target.key);
    if (known !== undefined) return known;
    if (this.#peers.size >= 2 * this.#context.settings.maxTunnels) this.#sweep();
    const peer = new Peer(target);
    this.#peers.set(target.key, peer);
    return peer;
  }

  /** Forgets peers that only a past failure is known of. */
  #sweep(): void {
    for (const [key, peer] of this.#peers)
      if (peer.sessions.size === 0 && !peer.dialling) this.#peers.delete(key);
  }

  /** No session can be trusted to take it: it waits for another one. `doubtful`: one that owes a sign of life. */
  #openAnew(peer: Peer, doubtful: TunnelSession | undefined, wanted: Wanted): void {
    const silence = doubtful?.silence ?? 0;
    doubtful?.probe(Math.max(DOUBT_AFTER, LOST_AFTER - silence));
    const refusal = this.#refusal(peer);
    if (refusal === undefined) {
      peer.queue.push(wanted);
      // The way to a peer behind relays may be another one, which has shown no silence yet.
      if (!peer.dialling) this.#dial(peer, peer.relayed ? 0 : silence);
    } else if (doubtful !== undefined) this.#adopt(doubtful, wanted);
    else this.#failLater(wanted.stream, refusal);
  }

  #refusal(peer: Peer): MeshError | undefined {
    if (peer.dialling) {
      if (peer.queue.length >= MAX_QUEUED)
        peer.queue = peer.queue.filter(({ stream }) => stream.state === 'queued');
      if (peer.queue.length < MAX_QUEUED) return undefined;
      return new MeshError('overload', 'agent', 'too many streams wait for the tunnel');
    }
    if (performance.now() < peer.retryAt) return peer.lastError;
    if (this.#tunnels < this.#context.settings.maxTunnels) return undefined;
    return new MeshError('overload', 'agent', 'too many tunnels');
  }

  /** The one place where a stream gets its session: only where the peer's own certificate allows it. */
  #adopt(session: TunnelSession, { stream, request }: Wanted): void {
    const objection = objectionTo(session.peer, request);
    if (objection === undefined) session.adopt(stream);
    else this.#failLater(stream, new MeshError('denied', 'peer', objection));
  }

  #failLater(stream: TunnelStream, error: MeshError): void {
    this.#context.scheduler.afterBatch(() => stream.fail(error.code, false, error.message));
  }

  #failQueue(peer: Peer, error: MeshError): void {
    const queue = peer.queue;
    peer.queue = [];
    for (const { stream } of queue) stream.fail(error.code, false, error.message);
  }

  /** The one dial of a peer: whoever comes meanwhile waits for it, or goes elsewhere. */
  #dial(peer: Peer, silence = 0): void {
    peer.dials(silence);
    this.#tunnels++;
    const startedAt = performance.now();
    const events: SessionEvents = {
      stream: this.#events.stream,
      open: (session) => this.#opened(peer, session),
      answered: (session) => this.#serveQueue(peer, session),
      closed: (session, error) => {
        peer.sessions.delete(session);
        this.#tunnels--;
        // A session inside of a relay stream dies with the gateway that carried it: another one may carry the next.
        if (!peer.relayed && error !== undefined && performance.now() - startedAt < FLAP)
          peer.backOff(error, this.#context.settings);
        this.#drained();
      },
    };
    dialTunnel(this.#context, this.#credentials, peer.target, events).catch((error: unknown) => {
      this.#tunnels--;
      const why = error instanceof MeshError ? error : new MeshError('system', 'agent', String(error));
      peer.dialFailed(why);
      peer.backOff(why, this.#context.settings);
      this.#events.dialled?.(why.code);
      this.#context.log.info(
        { peer: peer.target.node, code: why.code, error: why.message },
        'tunnel dial failed',
      );
      this.#failQueue(peer, why);
      this.#drained();
    });
  }

  #opened(peer: Peer, session: TunnelSession): void {
    for (const old of peer.sessions) if (old.peerEpoch !== session.peerEpoch) old.probe(PROBE_TIMEOUT);
    peer.opened(session);
    this.#events.dialled?.('ok');
    if (this.#draining !== undefined) {
      session.drain();
      return;
    }
    this.#serveQueue(peer, session);
    if (peer.queue.length === 0 || peer.dialling) return;
    const refusal = this.#refusal(peer);
    if (refusal === undefined) this.#dial(peer);
    else this.#failQueue(peer, refusal);
  }

  /** Streams that wait for a dial get a session: the one that it made, or one that was in doubt and lives after all. */
  #serveQueue(peer: Peer, session: TunnelSession): void {
    const queue = peer.queue;
    peer.queue = [];
    for (const wanted of queue) {
      if (wanted.stream.state !== 'queued') continue;
      if (session.hasRoom) this.#adopt(session, wanted);
      else peer.queue.push(wanted);
    }
  }

  readonly #defer = (task: () => void): void => this.#context.scheduler.afterBatch(task);

  #drained(): void {
    if (this.#tunnels > 0) return;
    const waiting = this.#draining ?? [];
    for (const resolve of waiting.splice(0)) resolve();
  }
}

/** The session that new streams go to: with room, and the one that owes a sign of life for the shortest time. */
function usable(peer: Peer): TunnelSession | undefined {
  let best: TunnelSession | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const session of peer.sessions) {
    if (!session.hasRoom) continue;
    const { silence } = session;
    if (silence < DOUBT_AFTER) return session;
    if (silence < least) {
      best = session;
      least = silence;
    }
  }
  return best;
}

/** Why this peer may not be asked for that; its registry entries say nothing, its certificate has the word. */
function objectionTo(peer: PeerIdentity, request: OpenRequest): string | undefined {
  if (request.kind === 'relay') {
    return peer.relay
      ? undefined
      : `the certificate of ${peer.node} does not make it a zone-agent that may relay`;
  }
  if (grants(peer.host, request.service)) return undefined;
  return `the certificate of ${peer.node} does not grant hosting ${request.service}`;
}
