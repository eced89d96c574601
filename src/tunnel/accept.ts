import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { MeshError } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { TunnelContext } from './context.ts';
import { type TunnelCredentials, type TunnelKeyPair, tlsOptions } from './credentials.ts';
import { TCP_KEEPALIVE } from './dial.ts';
import { UpgradeServer } from './handshake.ts';
import { type SessionEvents, TunnelSession } from './session.ts';
import { TUNNEL_PATH } from './websocket.ts';

/** Connections that have not become tunnels; more are closed at once. */
const MAX_HALF_OPEN = 256;
/** Largest head of an upgrade request. */
const MAX_REQUEST_HEAD = 8192;

/** Where the acceptor listens: a descriptor that somebody else bound (shared by workers), or an address. */
export type ListenTarget = { readonly fd: number } | { readonly host: string; readonly port: number };

/** Takes tunnels: TLS 1.3 with both certificates, the upgrade, and nothing else. */
export class TunnelAcceptor {
  readonly #context: TunnelContext;
  readonly #credentials: TunnelCredentials;
  readonly #events: SessionEvents;
  readonly #server: Server;
  readonly #upgrades = new UpgradeServer();
  readonly #sessions = new Set<TunnelSession>();
  #pair: TunnelKeyPair;
  #connections = new Set<Duplex>();
  #upgraded = 0;
  #onGone: (() => void) | undefined;
  #draining = false;

  constructor(context: TunnelContext, credentials: TunnelCredentials, events: SessionEvents) {
    this.#context = context;
    this.#credentials = credentials;
    this.#events = events;
    this.#pair = credentials.current();
    const { handshakeTimeout } = context.settings;
    this.#server = createServer({
      ...tlsOptions(this.#pair),
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout,
      headersTimeout: handshakeTimeout,
      requestTimeout: handshakeTimeout,
      connectionsCheckingInterval: Math.min(1000, handshakeTimeout),
      keepAliveTimeout: 1,
      maxHeaderSize: MAX_REQUEST_HEAD,
      noDelay: true,
    });
    // Before TLS sees it, so that what is too much costs no handshake, and a new certificate is used at once.
    this.#server.prependListener('connection', (socket: Socket) => this.#onConnection(socket));
    this.#server.on('request', (request, response) => this.#onRequest(request, response));
    this.#server.on('upgrade', (request, socket, head) => this.#onUpgrade(request, socket, head));
    this.#server.on('tlsClientError', (error, socket) => {
      this.#context.log.debug(
        { error: error.message, from: socket.remoteAddress },
        'tunnel handshake failed',
      );
      socket.destroy();
    });
    this.#server.on('clientError', (_error, socket) => socket.destroy());
  }

  get sessions(): ReadonlySet<TunnelSession> {
    return this.#sessions;
  }

  /** Connections that have not become tunnels yet. */
  get halfOpen(): number {
    return this.#connections.size - this.#upgraded;
  }

  /** Begins to listen; resolves with the port. */
  listen(target: ListenTarget): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(target, () => {
        this.#server.off('error', reject);
        const address = this.#server.address();
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  }

  /** Takes a byte stream that somebody else accepted: a socket, or the inside of a RELAY stream. */
  handle(socket: Duplex): void {
    this.#server.emit('connection', socket);
  }

  /** Accepts nothing new, and lets the live tunnels finish their streams. */
  drain(): void {
    this.#draining = true;
    this.#server.close();
    for (const session of [...this.#sessions]) session.drain();
  }

  /** Ends everything at once. */
  close(): void {
    this.#draining = true;
    this.#server.close();
    for (const session of [...this.#sessions]) session.close('draining', 'the agent stops');
    if (this.#upgraded === 0) for (const socket of [...this.#connections]) socket.destroy();
  }

  /**
   * Resolves when the peers have ended their side of every tunnel, and at the latest after `milliseconds`. Until then what was
   * under way to us is read: a reset for it would overtake the GOAWAY, and nobody would know that it was not delivered.
   */
  gone(milliseconds: number): Promise<void> {
    if (this.#upgraded === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const late = setTimeout(resolve, milliseconds);
      this.#onGone = () => {
        clearTimeout(late);
        resolve();
      };
    });
  }

  #onConnection(socket: Duplex): void {
    if (this.#draining || this.halfOpen >= MAX_HALF_OPEN) {
      this.#context.log.debug({ halfOpen: this.halfOpen }, 'tunnel connection refused');
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    socket.on('error', () => socket.destroy());
    const pair = this.#credentials.current();
    if (pair === this.#pair) return;
    this.#pair = pair;
    this.#server.setSecureContext(tlsOptions(pair));
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const status = request.url === TUNNEL_PATH ? 426 : 404;
    response.writeHead(status, { Connection: 'close', 'Content-Length': 0 });
    response.end(() => request.socket.destroySoon());
  }

  #onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    if (request.url !== TUNNEL_PATH) {
      refuse(socket, '404 Not Found');
      return;
    }
    if (!this.#upgrades.speaks(request)) {
      refuse(socket, '426 Upgrade Required');
      return;
    }
    if (this.#draining || this.#sessions.size >= this.#context.settings.maxTunnels) {
      refuse(socket, '503 Service Unavailable');
      return;
    }
    let peer: PeerIdentity;
    try {
      peer = this.#identify(socket as TLSSocket);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      this.#context.log.warn({ error: error.message }, 'tunnel refused');
      refuse(socket, '403 Forbidden');
      return;
    }
    this.#upgrades.answer(request, socket, head, (rest) => this.#open(socket as TLSSocket, rest, peer));
  }

  #open(socket: TLSSocket, head: Buffer, peer: PeerIdentity): void {
    this.#upgraded++;
    socket.once('close', () => {
      this.#upgraded--;
      if (this.#upgraded === 0) this.#onGone?.();
    });
    socket.setTimeout(0);
    socket.setKeepAlive(true, TCP_KEEPALIVE);
    const session = new TunnelSession(this.#context, 'acceptor', socket, head, peer, {
      ...this.#events,
      closed: (self, error) => {
        this.#sessions.delete(self);
        this.#events.closed?.(self, error);
      },
    });
    if (session.state !== 'closed') this.#sessions.add(session);
  }

  #identify(socket: TLSSocket): PeerIdentity {
    const { raw } = socket.getPeerCertificate(false);
    if (raw === undefined) throw new MeshError('tls', 'peer', 'no certificate');
    return this.#credentials.verifyPeer(raw, socket.authorized);
  }
}

function refuse(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}
