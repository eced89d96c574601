import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from 'node:crypto';
import { join } from 'node:path';
import { MeshError } from '../model/errors.ts';
import { type NodeName, parseNodeName, parseServiceName, type ServiceName } from '../model/service.ts';
import { MAX_CERTIFICATE_BYTES, readCertificate } from './certificate.ts';
import { buildCertificate, encodeName, extension, keyId, pemOfCertificate } from './certificate-builder.ts';
import { DerReader, encodeOid, tag } from './der.ts';
import {
  type FileOwner,
  fileMode,
  makePrivateDirectory,
  readPemFile,
  readPemFileIfAny,
  requireAbsent,
  writeFileAtomic,
} from './files.ts';
import { encodeGrants, grantsOid, MAX_GRANTED_NAMES } from './grants.ts';
import { authorityId, nodeId, parseSpiffeId } from './spiffe.ts';

/** Names of an authority's and of a node's files within their directories. */
const identityFiles = {
  authorityKey: 'ca.key',
  authority: 'ca.crt',
  certificate: 'node.crt',
  key: 'node.key',
} as const;

/** A new certificate is valid from this long ago, for peers whose clocks are behind. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Longest life that may be asked for. */
const MAX_DAYS = 36_500;
const SUBJECT_KEY_ID = encodeOid('2.5.29.14');
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** What `initAuthority` is told. */
interface AuthorityOptions {
  readonly trustDomain: string;
  /** Life of the authority's certificate. */
  readonly days: number;
  /** Replace an authority that is there: every certificate it issued becomes worthless. */
  readonly overwrite?: boolean;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** A new authority. */
export interface Authority {
  /** PEM certificate; nodes are given it as the authority to believe. */
  readonly certificate: string;
  readonly trustDomain: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** What a node is allowed, and for how long. */
export interface NodeOptions {
  readonly node: string;
  /** Service names, or `*` for any. */
  readonly callAs: readonly string[];
  readonly host: readonly string[];
  /** True for a zone-agent. */
  readonly relay: boolean;
  /** Life of the certificate; cut to the end of the authority's. */
  readonly days: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** All that a node needs, as PEM texts. */
export interface NodeBundle {
  readonly certificate: string;
  readonly key: string;
  readonly ca: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/**
 * Makes the authority of a mesh in `directory`: `ca.key` (ECDSA P-256, mode 0600) and `ca.crt`, self-signed, which
 * may sign certificates of nodes (path length 0) of its own trust domain and of no other (name constraint).
 * An authority that is there already stays, unless `overwrite` is set.
 */
export async function initAuthority(directory: string, options: AuthorityOptions): Promise<Authority> {
  const { trustDomain } = options;
  if (parseNodeName(trustDomain) === undefined) throw unusable(`${trustDomain} is not a trust domain name`);
  const now = options.now?.() ?? Date.now();
  const notAfter = endOfLife(now, options.days);
  const overwrite = options.overwrite ?? false;
  const keyFile = join(directory, identityFiles.authorityKey);
  const certificateFile = join(directory, identityFiles.authority);
  await makePrivateDirectory(directory);
  if (!overwrite) for (const file of [keyFile, certificateFile]) await requireAbsent(file);

  const keys = generateKeys();
  // The name tells authorities of one trust domain apart, so that an old and a new one can be believed together.
  const name = encodeName(`mesh-node authority ${randomBytes(4).toString('hex')}`);
  const id = keyId(keys.publicKey);
  const der = buildCertificate(
    {
      serial: serialNumber(),
      issuer: name,
      subject: name,
      notBefore: now - CLOCK_SKEW_MS,
      notAfter,
      publicKey: keys.publicKey,
      extensions: [
        extension.basicConstraints(true),
        extension.keyUsage('sign-certificates'),
        extension.uris(authorityId(trustDomain)),
        // A node that believes two authorities cannot be deceived by one in the name of the other.
        extension.permittedUriHost(trustDomain),
        extension.subjectKeyId(id),
        extension.authorityKeyId(id),
      ],
    },
    keys.privateKey,
  );
  const text = pemOfCertificate(der);
  // The key first: a certificate without key is found at once, a key without certificate is simply unused.
  await writeFileAtomic({ path: keyFile, text: pemOfKey(keys.privateKey), mode: fileMode.key, overwrite });
  await writeFileAtomic({ path: certificateFile, text, mode: fileMode.certificate, overwrite });
  return { certificate: text, trustDomain, expiresAt: notAfter };
}

/** Issues a certificate for a node with the authority in `directory`. Nothing is written. */
export async function issueNode(directory: string, options: NodeOptions): Promise<NodeBundle> {
  const node = parseNodeName(options.node);
  if (node === undefined) throw unusable(`${options.node} is not a node name`);
  const grants = encodeGrants({
    callAs: serviceNames(options.callAs),
    host: serviceNames(options.host),
    relay: options.relay,
  });
  const authority = await readAuthority(directory);
  const now = options.now?.() ?? Date.now();
  const notAfter = Math.min(endOfLife(now, options.days), authority.notAfter);
  if (notAfter <= now) throw unusable(`the authority in ${directory} has expired`);

  const keys = generateKeys();
  const der = buildCertificate(
    {
      serial: serialNumber(),
      issuer: authority.name,
      subject: encodeName(commonName(node)),
      notBefore: now - CLOCK_SKEW_MS,
      notAfter,
      publicKey: keys.publicKey,
      extensions: [
        extension.basicConstraints(false),
        extension.keyUsage('digital-signature'),
        extension.extendedKeyUsage(SERVER_AUTH, CLIENT_AUTH),
        extension.uris(nodeId(authority.trustDomain, node)),
        { oid: grantsOid, critical: false, value: grants },
        extension.subjectKeyId(keyId(keys.publicKey)),
        extension.authorityKeyId(authority.keyId),
      ],
    },
    authority.key,
  );
  if (der.length > MAX_CERTIFICATE_BYTES) {
    throw unusable(
      `the granted names make a certificate of more than ${MAX_CERTIFICATE_BYTES} bytes; grant *`,
    );
  }
  return {
    certificate: pemOfCertificate(der),
    key: pemOfKey(keys.privateKey),
    ca: authority.certificate,
    expiresAt: notAfter,
  };
}

/**
 * Writes a bundle into a node's directory: `node.key` (mode 0600), `node.crt` and `ca.crt`. Files that are there
 * already stay and are an error, unless `overwrite` is set or they say the same.
 */
export async function writeNodeBundle(
  directory: string,
  bundle: NodeBundle,
  options: { readonly overwrite?: boolean; readonly owner?: FileOwner } = {},
): Promise<void> {
  const overwrite = options.overwrite ?? false;
  const { owner } = options;
  const keyFile = join(directory, identityFiles.key);
  const certificateFile = join(directory, identityFiles.certificate);
  const authorityFile = join(directory, identityFiles.authority);
  await makePrivateDirectory(directory, owner);
  const believed = await readPemFileIfAny(authorityFile, 'authority bundle');
  if (!overwrite) {
    for (const file of [keyFile, certificateFile]) await requireAbsent(file);
    if (believed !== undefined && believed !== bundle.ca) await requireAbsent(authorityFile);
  }
  const certificate = { mode: fileMode.certificate, owner, overwrite };
  await writeFileAtomic({ path: keyFile, text: bundle.key, mode: fileMode.key, owner, overwrite });
  await writeFileAtomic({ path: certificateFile, text: bundle.certificate, ...certificate });
  if (believed !== bundle.ca) await writeFileAtomic({ path: authorityFile, text: bundle.ca, ...certificate });
}

interface LoadedAuthority {
  readonly certificate: string;
  readonly key: KeyObject;
  readonly name: Uint8Array;
  readonly keyId: Uint8Array;
  readonly notAfter: number;
  readonly trustDomain: string;
}

async function readAuthority(directory: string): Promise<LoadedAuthority> {
  const certificateFile = join(directory, identityFiles.authority);
  const keyFile = join(directory, identityFiles.authorityKey);
  const [certificateText, keyText] = await Promise.all([
    readPemFile(certificateFile, 'authority certificate', false),
    readPemFile(keyFile, 'authority key', true),
  ]);
  try {
    const certificate = new X509Certificate(certificateText);
    const key = createPrivateKey(keyText);
    if (!certificate.checkPrivateKey(key)) throw unusable(`${keyFile} is not the key of ${certificateFile}`);
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
      throw unusable(`${keyFile} is not a P-256 key`);
    if (!certificate.ca) throw unusable(`${certificateFile} is not the certificate of an authority`);
    const fields = readCertificate(certificate.raw, SUBJECT_KEY_ID);
    const id = fields.uris.length === 1 ? parseSpiffeId(fields.uris[0]!) : undefined;
    if (id === undefined || id.path !== '') throw unusable(`${certificateFile} names no trust domain`);
    return {
      certificate: pemOfCertificate(certificate.raw),
      key,
      name: fields.subject,
      keyId:
        fields.extension === undefined
          ? keyId(certificate.publicKey)
          : new DerReader(fields.extension).read(tag.octetString, 'the key id'),
      notAfter: fields.notAfter,
      trustDomain: id.trustDomain,
    };
  } catch (error) {
    if (error instanceof MeshError) throw error;
    throw unusable(`the authority in ${directory} cannot be read: ${String(error)}`, error);
  }
}

function serviceNames(texts: readonly string[]): ReadonlySet<ServiceName | '*'> {
  if (texts.length > MAX_GRANTED_NAMES) {
    throw unusable(`${texts.length} services granted where at most ${MAX_GRANTED_NAMES} fit; grant *`);
  }
  const names = new Set<ServiceName | '*'>();
  for (const text of texts) {
    const name = text === '*' ? text : parseServiceName(text);
    if (name === undefined) throw unusable(`${text} is not a service name`);
    names.add(name);
  }
  return names;
}

/** A random positive number of 128 bits. */
function serialNumber(): Uint8Array {
  const bits = randomBytes(16);
  bits[0]! |= 0x80; // the zero octet before it, which makes the number positive, is then the shortest form
  return Buffer.concat([Uint8Array.of(0), bits]);
}

/** A common name holds at most 64 characters (RFC 5280, ub-common-name). It is for people only. */
function commonName(node: NodeName): string {
  return node.length <= 64 ? node : `${node.slice(0, 61)}...`;
}

function endOfLife(now: number, days: number): number {
  if (!(days > 0 && days <= MAX_DAYS))
    throw unusable(`${days} days: expected more than 0, at most ${MAX_DAYS}`);
  return Math.floor((now + days * DAY_MS) / 1000) * 1000; // certificates count whole seconds
}

function generateKeys(): { readonly publicKey: KeyObject; readonly privateKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

function pemOfKey(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }) as string;
}

function unusable(message: string, cause?: unknown): MeshError {
  return new MeshError('configuration', 'operator', message, { cause });
}
