import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { MeshError } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import { type CertificateFields, MAX_CERTIFICATE_BYTES, readCertificate } from './certificate.ts';
import { DerError, encodeOid } from './der.ts';
import { decodeGrants, type Grants, grantsOid } from './grants.ts';
import { nodeOfPath, parseSpiffeId } from './spiffe.ts';

const GRANTS_OID = encodeOid(grantsOid);
/** Certificates whose identity is remembered, counted by their size: some ten thousand ordinary ones. */
const CACHE_BYTES = 8 * 1024 * 1024;

interface Verified {
  readonly identity: PeerIdentity;
  readonly notBefore: number;
}

/** Tells who the other end of a tunnel is. */
export class PeerVerifier {
  readonly #trustDomain: string;
  readonly #now: () => number;
  readonly #cache = new LRUCache<string, Verified>({
    maxSize: CACHE_BYTES,
    maxEntrySize: MAX_CERTIFICATE_BYTES,
  });

  /** `now` gives milliseconds since the epoch. */
  constructor(trustDomain: string, now: () => number = Date.now) {
    this.#trustDomain = trustDomain;
    this.#now = now;
  }

  /**
   * The identity in a peer's certificate (DER). `chainAuthorized` is OpenSSL's word that one of our authorities
   * signed it (`TLSSocket.authorized`); nothing is parsed without it. Throws MeshError('tls', 'peer') whose message
   * says in words what is wrong; expiry is judged anew each time.
   */
  verify(der: Uint8Array, chainAuthorized: boolean): PeerIdentity {
    if (!chainAuthorized) throw refused('is not signed by an authority that this node believes');
    if (der.length === 0) throw refused('is missing');
    if (der.length > MAX_CERTIFICATE_BYTES) throw refused(`is larger than ${MAX_CERTIFICATE_BYTES} bytes`);
    const fingerprint = createHash('sha256').update(der).digest('base64');
    let verified = this.#cache.get(fingerprint);
    if (verified === undefined) {
      verified = read(der, this.#trustDomain);
      this.#cache.set(fingerprint, verified, { size: der.length });
    }
    const now = this.#now();
    const { node, expiresAt } = verified.identity;
    if (now > expiresAt) throw refused(`of node ${node} expired at ${isoTime(expiresAt)}`);
    if (now < verified.notBefore) {
      throw refused(`of node ${node} is not valid before ${isoTime(verified.notBefore)}`);
    }
    return verified.identity;
  }
}

function read(der: Uint8Array, trustDomain: string): Verified {
  const fields = certificateFields(der);
  if (fields.isAuthority || fields.mayCertSign)
    throw refused('is the certificate of an authority, not of a node');
  if (fields.uris.length === 0) throw refused('has no SPIFFE id');
  if (fields.uris.length > 1)
    throw refused(`has ${fields.uris.length} URI names where exactly one is allowed`);
  const uri = fields.uris[0]!;
  const id = parseSpiffeId(uri);
  if (id === undefined) throw refused(`has a URI name that is not a SPIFFE id: ${printable(uri)}`);
  if (id.trustDomain !== trustDomain) {
    throw refused(`belongs to trust domain ${printable(id.trustDomain)}, expected ${trustDomain}`);
  }
  const node = nodeOfPath(id.path);
  if (node === undefined) throw refused(`has a SPIFFE id that names no node: ${printable(uri)}`);
  if (!fields.mayDigitalSign) throw refused(`of node ${node} has no key usage digitalSignature`);
  if (!fields.serverAuth || !fields.clientAuth) {
    throw refused(`of node ${node} lacks the extended key usage serverAuth or clientAuth`);
  }
  if (fields.extension === undefined) {
    throw refused(`of node ${node} says nothing about what the node may call and host`);
  }
  let grants: Grants;
  try {
    grants = decodeGrants(fields.extension);
  } catch (error) {
    throw malformed(error, `of node ${node} has a malformed extension`);
  }
  return {
    identity: Object.freeze({ node, ...grants, expiresAt: fields.notAfter }),
    notBefore: fields.notBefore,
  };
}

function certificateFields(der: Uint8Array): CertificateFields {
  try {
    return readCertificate(der, GRANTS_OID);
  } catch (error) {
    throw malformed(error, 'cannot be read');
  }
}

function refused(why: string, cause?: unknown): MeshError {
  return new MeshError('tls', 'peer', `the peer's certificate ${why}`, { retry: 'safe', cause });
}

/** A DerError is the peer's fault; anything else would be ours and must not be hidden. */
function malformed(error: unknown, why: string): unknown {
  return error instanceof DerError ? refused(`${why}: ${error.message}`, error) : error;
}

function isoTime(time: number): string {
  return new Date(time).toISOString();
}

/** Text of a stranger, fit for a log line. */
function printable(text: string): string {
  const short = text.length > 120 ? `${text.slice(0, 120)}…` : text;
  return JSON.stringify(short.replace(/[^\x20-\x7e…]/g, '?'));
}
