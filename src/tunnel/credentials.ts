import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { PeerIdentity } from '../model/peer.ts';

/** PEM texts. A new object whenever one of them changed. */
export interface TunnelKeyPair {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  /** Authorities that are believed. */
  readonly ca: string | Buffer;
}

/** What tunnels need to know of identities. */
export interface TunnelCredentials {
  /** Asked for each handshake, so that a renewed certificate is used without touching live tunnels. */
  current(): TunnelKeyPair;
  /**
   * Reads who a certificate (DER) speaks for. `chainAuthorized`: TLS verified its chain against `ca`. Throws a `tls`
   * MeshError when it is not to be believed.
   */
  verifyPeer(rawCertificate: Buffer, chainAuthorized: boolean): PeerIdentity;
}

/** AES-128 first: it costs a quarter less than AES-256, and bulk data is mostly this. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';

/** TLS 1.3 only. No tickets: a resumed session would skip the certificates, and a tunnel lives long enough. */
export function tlsOptions(pair: TunnelKeyPair): SecureContextOptions {
  return {
    key: pair.key,
    cert: pair.cert,
    ca: pair.ca,
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: CIPHERS,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

const contexts = new WeakMap<TunnelKeyPair, SecureContext>();

/** The TLS context of a key pair, made once. */
export function secureContext(pair: TunnelKeyPair): SecureContext {
  let context = contexts.get(pair);
  if (context === undefined) {
    context = createSecureContext(tlsOptions(pair));
    contexts.set(pair, context);
  }
  return context;
}
