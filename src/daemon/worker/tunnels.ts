import { type CredentialTexts, NodeCredentials } from '../../identity/node-credentials.ts';
import type { Poller } from '../../io/poller.ts';
import type { PeerIdentity } from '../../model/peer.ts';
import type { NodeName } from '../../model/service.ts';
import type { ServiceRequest } from '../../proxy/inbound.ts';
import type { IncomingStream } from '../../proxy/join.ts';
import type { RelayRequest } from '../../proxy/zone-relay.ts';
import type { Log } from '../../telemetry/log.ts';
import { TunnelAcceptor } from '../../tunnel/accept.ts';
import type { TunnelContext, TunnelSettings } from '../../tunnel/context.ts';
import type { TunnelTarget } from '../../tunnel/dial.ts';
import type { OpenRequest } from '../../tunnel/open-request.ts';
import { TunnelPool } from '../../tunnel/pool.ts';
import type { TunnelSession } from '../../tunnel/session.ts';
import type { TunnelStream } from '../../tunnel/stream.ts';
import type { Listener } from '../succession/listeners.ts';
import type { TunnelView } from './tunnel-view.ts';
import type { WorkerMetrics } from './worker-metrics.ts';

/** How long peers have to end tunnels that are closed, in ms: they do so at once, or are gone. */
const FAREWELL_MS = 500;

export interface TunnelsOptions {
  readonly settings: TunnelSettings;
  readonly poller: Poller;
  readonly log: Log;
  readonly epoch: bigint;
  readonly listeners: readonly Listener[];
  readonly metrics: WorkerMetrics;
  service(request: ServiceRequest, stream: IncomingStream, peer: PeerIdentity, from: string): void;
  /** Absent in an agent that does not relay. */
  readonly relay:
    | ((request: RelayRequest, stream: IncomingStream, peer: PeerIdentity, from: string) => void)
    | undefined;
}

/**
 * The tunnels of a worker, both directions, as soon as this node has a certificate. Another certificate is used for
 * the next handshake; tunnels that stand are not touched.
 */
export class Tunnels {
  readonly #options: TunnelsOptions;
  readonly #context: TunnelContext;
  #credentials: NodeCredentials | undefined;
  #pool: TunnelPool | undefined;
  #acceptor: TunnelAcceptor | undefined;
  #serving = false;

  constructor(options: TunnelsOptions) {
    this.#options = options;
    const { settings, poller, log, epoch } = options;
    this.#context = { settings, scheduler: poller, log: log.child({ component: 'tunnel' }), epoch };
  }

  /** Throws a MeshError `configuration` when the texts cannot be used; then nothing changes. */
  use(texts: CredentialTexts, owner: { readonly trustDomain: string; readonly node: NodeName }): void {
    if (this.#credentials !== undefined) {
      this.#credentials.replace(texts);
      return;
    }
    const credentials = new NodeCredentials(texts, owner);
    this.#credentials = credentials;
    this.#pool = new TunnelPool(this.#context, credentials, {
      dialled: (outcome) => this.#options.metrics.dialled(outcome),
    });
    this.#acceptor = new TunnelAcceptor(this.#context, credentials, {
      stream: (open, stream, session) => this.#incoming(open, stream, session),
      open: (session) => {
        if (session.peerEpoch !== undefined) this.#pool?.seen(session.peer.node, session.peerEpoch);
      },
    });
    if (this.#serving) this.serve();
  }

  /** Begins to accept. */
  serve(): void {
    this.#serving = true;
    for (const { fd } of this.#options.listeners) {
      this.#acceptor?.listen({ fd }).catch((error: unknown) => {
        this.#options.log.error({ error }, 'tunnel listener');
      });
    }
  }

  /** Undefined while this node has no certificate. */
  open(target: TunnelTarget, request: OpenRequest): TunnelStream | undefined {
    return this.#pool?.open(target, request);
  }

  list(): TunnelView[] {
    const dialled = (this.#pool?.stats() ?? []).map(
      ({ node, address, state, rtt, streams, since }): TunnelView => ({
        peer: node,
        direction: 'dialled',
        state,
        address,
        streams,
        roundTripMs: rtt,
        since,
      }),
    );
    const accepted = Array.from(
      this.#acceptor?.sessions ?? [],
      ({ peer, state, rtt, streamCount, remoteAddress, since }): TunnelView => ({
        peer: peer.node,
        direction: 'accepted',
        state,
        address: remoteAddress,
        streams: streamCount,
        roundTripMs: rtt,
        since,
      }),
    );
    return [...dialled, ...accepted];
  }

  /** Accepted tunnels take no new stream; those that this worker dialled stay usable for connections that live. */
  drain(): void {
    this.#acceptor?.drain();
  }

  close(): void {
    this.#acceptor?.close();
    this.#pool?.close();
  }

  /** After `close`: resolves when the peers have heard of it, or do not listen. */
  async gone(): Promise<void> {
    await this.#acceptor?.gone(FAREWELL_MS);
  }

  #incoming(open: OpenRequest, stream: TunnelStream, session: TunnelSession): void {
    const { service, relay } = this.#options;
    const from = session.remoteAddress;
    if (open.kind === 'service') {
      const { service: name, instance, callerService, callerProgram, callerAddress } = open;
      const request = { service: name, instance, callerService, callerProgram, callerAddress };
      service(request, stream, session.peer, from);
    } else if (relay === undefined) stream.reset('denied', 'this agent does not relay');
    else
      relay(
        { zone: open.zone, node: open.node, service: open.service, via: open.via },
        stream,
        session.peer,
        from,
      );
  }
}
