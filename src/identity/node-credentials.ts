import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { PeerIdentity } from '../model/peer.ts';
import type { NodeName } from '../model/service.ts';
import { readPemFile } from './files.ts';
import { PeerVerifier } from './peer-verifier.ts';

/** Most authorities in one bundle. */
const MAX_AUTHORITIES = 256;
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** What TLS needs, as PEM texts; small enough to be handed from the supervisor to its workers. */
export interface CredentialTexts {
  readonly key: string;
  readonly cert: string;
  /** Every authority that is believed, one after the other. */
  readonly ca: string;
}

/** Where the texts are kept; the `identity` section of the configuration. */
interface CredentialPaths {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** Reads the three files. Throws MeshError('configuration', 'operator') naming the path, also for a key file that others may read. */
export async function readCredentials(paths: CredentialPaths): Promise<CredentialTexts> {
  const [ca, cert, key] = await Promise.all([
    readPemFile(paths.authority, 'authority bundle', false),
    readPemFile(paths.certificate, 'node certificate', false),
    readPemFile(paths.key, 'node key', true),
  ]);
  return { key, cert, ca };
}

/**
 * Who this node is, and its judgement of who others are. Texts are checked whole before they count; new ones take
 * the place of old ones only when they are good, and connections that stand are not touched.
 */
export class NodeCredentials {
  readonly #node: NodeName;
  readonly #verifier: PeerVerifier;
  #texts: CredentialTexts;
  #identity: PeerIdentity;

  /**
   * Throws MeshError('configuration', 'operator') when the texts cannot be used: key of another certificate, signed
   * by none of the authorities, made for another node or trust domain, expired.
   */
  constructor(
    texts: CredentialTexts,
    options: { readonly trustDomain: string; readonly node: NodeName; readonly now?: () => number },
  ) {
    this.#node = options.node;
    this.#verifier = new PeerVerifier(options.trustDomain, options.now);
    this.#identity = this.#check(texts);
    this.#texts = freeze(texts);
  }

  /** The texts for new TLS connections. The same object until {@link replace} took others. */
  current(): CredentialTexts {
    return this.#texts;
  }

  /** What this node's own certificate says of it. */
  get identity(): PeerIdentity {
    return this.#identity;
  }

  /** End of the certificate's life, milliseconds since the epoch. */
  get expiresAt(): number {
    return this.#identity.expiresAt;
  }

  /** The identity in a peer's certificate (DER); throws MeshError('tls', 'peer'). */
  verifyPeer(rawCertificate: Buffer, chainAuthorized: boolean): PeerIdentity {
    return this.#verifier.verify(rawCertificate, chainAuthorized);
  }

  /**
   * Takes new texts when they are good: true when they differ from the old ones. Otherwise throws as the constructor
   * does, and the old ones stay in force.
   */
  replace(texts: CredentialTexts): boolean {
    const { key, cert, ca } = this.#texts;
    if (texts.key === key && texts.cert === cert && texts.ca === ca) return false;
    this.#identity = this.#check(texts);
    this.#texts = freeze(texts);
    return true;
  }

  /** Reads the files again; as {@link replace}. */
  async reload(paths: CredentialPaths): Promise<boolean> {
    return this.replace(await readCredentials(paths));
  }

  #check(texts: CredentialTexts): PeerIdentity {
    const certificate = parse('the node certificate', () => new X509Certificate(texts.cert));
    const key = parse('the node key', () => createPrivateKey(texts.key));
    const authorities = parseAuthorities(texts.ca);
    if (!certificate.checkPrivateKey(key))
      throw unusable('the node key does not belong to the node certificate');
    if (!authorities.some((authority) => signed(authority, certificate))) {
      throw unusable('the node certificate is signed by none of the authorities in the bundle');
    }
    let identity: PeerIdentity;
    try {
      // What peers would find wrong is found here first. The chain was verified above.
      identity = this.#verifier.verify(certificate.raw, true);
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      throw unusable(error.message.replace("the peer's certificate", 'the node certificate'), error);
    }
    if (identity.node !== this.#node) {
      throw unusable(`the node certificate is of node ${identity.node}, and this node is ${this.#node}`);
    }
    return identity;
  }
}

function parseAuthorities(text: string): readonly X509Certificate[] {
  const blocks = text.match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0) throw unusable('the authority bundle holds no certificate');
  if (blocks.length > MAX_AUTHORITIES) {
    throw unusable(`the authority bundle holds more than ${MAX_AUTHORITIES} certificates`);
  }
  return blocks.map((block) => {
    const authority = parse('a certificate of the authority bundle', () => new X509Certificate(block));
    if (!authority.ca) throw unusable('the authority bundle holds a certificate that is no authority');
    return authority;
  });
}

function signed(authority: X509Certificate, certificate: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

function parse<T extends X509Certificate | KeyObject>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw unusable(`${what} cannot be read: ${reasonOf(error)}`, error);
  }
}

function freeze({ key, cert, ca }: CredentialTexts): CredentialTexts {
  return Object.freeze({ key, cert, ca });
}

function unusable(message: string, cause?: unknown): MeshError {
  return new MeshError('configuration', 'operator', message, { cause });
}
