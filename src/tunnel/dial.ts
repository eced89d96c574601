import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import type { Endpoint } from '../model/address.ts';
import { type ErrorCode, MeshError } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { NodeName } from '../model/service.ts';
import type { TunnelContext } from './context.ts';
import { secureContext, type TunnelCredentials } from './credentials.ts';
import { askUpgrade } from './handshake.ts';
import { type SessionEvents, TunnelSession } from './session.ts';

/** A peer, and how it is reached. */
export interface TunnelTarget {
  /** The name that its certificate must say. */
  readonly node: NodeName;
  /** Its tunnel listener, or a function that opens a byte stream to its acceptor (through a relay). */
  readonly via: Endpoint | (() => Duplex);
  /** Tunnels are shared by targets of the same key. */
  readonly key: string;
}

/** TCP keepalive beneath the session's own, in ms: under the 60 s after which conntrack forgets half-closed ones. */
export const TCP_KEEPALIVE = 30_000;

const systemCodes: Readonly<Record<string, ErrorCode>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  ETIMEDOUT: 'timeout',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EHOSTDOWN: 'unreachable',
  EACCES: 'denied',
};

function codeOf(code: string): ErrorCode {
  const known = systemCodes[code];
  if (known !== undefined) return known;
  // What is wrong with an answer to the upgrade has no code, or one of the HTTP parser.
  if (code === '' || code.startsWith('HPE_')) return 'protocol';
  return /SSL|TLS|CERT|SIGNATURE|ISSUER|SELF_SIGNED/.test(code) ? 'tls' : 'system';
}

function dialError(cause: unknown, node: NodeName): MeshError {
  if (cause instanceof MeshError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException;
  return new MeshError(codeOf(code), 'peer', `tunnel to ${node}: ${message}`, { retry: 'safe', cause });
}

/**
 * Dials a peer: connect, TLS, WebSocket, HELLO, all within `handshakeTimeout`. Resolves with an open session; rejects
 * with a MeshError of `retry: 'safe'`.
 */
export function dialTunnel(
  context: TunnelContext,
  credentials: TunnelCredentials,
  target: TunnelTarget,
  events: SessionEvents,
): Promise<TunnelSession> {
  return new Promise((resolve, reject) => {
    const { node } = target;
    let session: TunnelSession | undefined;
    let socket: TLSSocket | undefined;
    const done = (error: unknown): void => {
      clearTimeout(timer);
      if (error === undefined) return;
      socket?.destroy();
      reject(dialError(error, node));
    };
    const timer = setTimeout(() => {
      const error = new MeshError('timeout', 'peer', `tunnel to ${node}: no answer in time`, {
        retry: 'safe',
      });
      if (session === undefined) done(error);
      else session.fail(error);
    }, context.settings.handshakeTimeout);
    try {
      socket = startTls(credentials, target);
    } catch (error) {
      return done(error);
    }
    const tls = socket;
    const closed = () => done(new MeshError('reset', 'peer', `tunnel to ${node}: closed`, { retry: 'safe' }));
    tls.on('error', done);
    tls.on('close', closed);
    tls.once('secureConnect', () => {
      let peer: PeerIdentity;
      try {
        peer = verify(credentials, tls, node);
      } catch (error) {
        return done(error);
      }
      const upgraded = (head: Buffer): void => {
        tls.off('close', closed);
        tls.off('error', done);
        let opened = false;
        session = new TunnelSession(context, 'dialler', tls, head, peer, {
          ...events,
          open: (self) => {
            opened = true;
            done(undefined);
            resolve(self);
            events.open?.(self);
          },
          closed: (self, error) => {
            if (opened) events.closed?.(self, error);
            else if (error === undefined) closed();
            else done(error);
          },
        });
      };
      askUpgrade(tls, node, { upgraded, failed: done });
    });
  });
}

function startTls(credentials: TunnelCredentials, target: TunnelTarget): TLSSocket {
  const common = {
    secureContext: secureContext(credentials.current()),
    minVersion: 'TLSv1.3',
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: true,
    // The certificate names a node, not a host: `verify` looks at it.
    checkServerIdentity: () => undefined,
  } as const;
  if (typeof target.via === 'function') return connect({ ...common, socket: target.via() });
  const socket = connect({ ...common, host: target.via.ip, port: target.via.port });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, TCP_KEEPALIVE);
  return socket;
}

function verify(credentials: TunnelCredentials, socket: TLSSocket, node: NodeName): PeerIdentity {
  const { raw } = socket.getPeerCertificate(false);
  if (raw === undefined)
    throw new MeshError('tls', 'peer', `tunnel to ${node}: no certificate`, { retry: 'safe' });
  const peer = credentials.verifyPeer(raw, socket.authorized);
  if (peer.node === node) return peer;
  throw new MeshError('tls', 'peer', `expected node ${node}, its certificate says ${peer.node}`, {
    retry: 'safe',
  });
}
