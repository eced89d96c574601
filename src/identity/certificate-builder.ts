import { createHash, type KeyObject, sign } from 'node:crypto';
import { contextTag, DerReader, encodeDer, encodeOid, tag } from './der.ts';

/*
 * Certificates are built here and not by a library, because they are few and all alike, and because the libraries
 * at hand could not carry the object identifier of our extension (an arc of 126 bits). Everything that is built is
 * put before OpenSSL's strict verification in the tests.
 */

/** One extension: dotted object identifier and DER value. */
export interface CertificateExtension {
  readonly oid: string;
  readonly critical: boolean;
  readonly value: Uint8Array;
}

/** What goes into a certificate. */
interface CertificateTemplate {
  /** Content octets of a positive integer. */
  readonly serial: Uint8Array;
  /** DER names. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** Milliseconds since the epoch; certificates keep whole seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  readonly publicKey: KeyObject;
  readonly extensions: readonly CertificateExtension[];
}

const TRUE = encodeDer(tag.boolean, Uint8Array.of(0xff));
const VERSION_3 = encodeDer(contextTag(0, true), encodeDer(tag.integer, Uint8Array.of(2)));
const ECDSA_WITH_SHA256 = encodeDer(tag.sequence, encodeDer(tag.oid, encodeOid('1.2.840.10045.4.3.2')));
const COMMON_NAME = encodeDer(tag.oid, encodeOid('2.5.4.3'));
/** First time that UTCTime cannot say (RFC 5280 §4.1.2.5). */
const YEAR_2050 = Date.UTC(2050, 0);

/** An X.509 v3 certificate (RFC 5280) in DER, signed with ECDSA and SHA-256 by a P-256 key. */
export function buildCertificate(template: CertificateTemplate, signingKey: KeyObject): Uint8Array {
  const extensions = template.extensions.map(({ oid, critical, value }) =>
    encodeDer(
      tag.sequence,
      encodeDer(tag.oid, encodeOid(oid)),
      ...(critical ? [TRUE] : []),
      encodeDer(tag.octetString, value),
    ),
  );
  const signedPart = encodeDer(
    tag.sequence,
    VERSION_3,
    encodeDer(tag.integer, template.serial),
    ECDSA_WITH_SHA256,
    template.issuer,
    encodeDer(tag.sequence, encodeTime(template.notBefore), encodeTime(template.notAfter)),
    template.subject,
    template.publicKey.export({ format: 'der', type: 'spki' }),
    encodeDer(contextTag(3, true), encodeDer(tag.sequence, ...extensions)),
  );
  const signature = sign('sha256', signedPart, signingKey);
  return encodeDer(tag.sequence, signedPart, ECDSA_WITH_SHA256, encodeBits(0, signature));
}

/** A distinguished name of one common name. */
export function encodeName(commonName: string): Uint8Array {
  const attribute = encodeDer(tag.sequence, COMMON_NAME, encodeDer(tag.utf8String, Buffer.from(commonName)));
  return encodeDer(tag.sequence, encodeDer(tag.set, attribute));
}

/** The usual extensions of RFC 5280 §4.2.1. */
export const extension = {
  basicConstraints: (authority: boolean): CertificateExtension => ({
    oid: '2.5.29.19',
    critical: true,
    // An authority may sign leaves only (path length 0).
    value: authority
      ? encodeDer(tag.sequence, TRUE, encodeDer(tag.integer, Uint8Array.of(0)))
      : encodeDer(tag.sequence),
  }),
  keyUsage: (usage: 'sign-certificates' | 'digital-signature'): CertificateExtension => ({
    oid: '2.5.29.15',
    critical: true,
    // Bits are counted from the highest: 0 digitalSignature, 5 keyCertSign, 6 cRLSign.
    value: usage === 'digital-signature' ? encodeBits(7, [0x80]) : encodeBits(1, [0x06]),
  }),
  extendedKeyUsage: (...purposes: readonly string[]): CertificateExtension => ({
    oid: '2.5.29.37',
    critical: false,
    value: encodeDer(tag.sequence, ...purposes.map((purpose) => encodeDer(tag.oid, encodeOid(purpose)))),
  }),
  uris: (...uris: readonly string[]): CertificateExtension => ({
    oid: '2.5.29.17',
    critical: false,
    value: encodeDer(tag.sequence, ...uris.map(encodeUri)),
  }),
  /** Only URIs of this host, here: SPIFFE ids of this trust domain. */
  permittedUriHost: (host: string): CertificateExtension => ({
    oid: '2.5.29.30',
    critical: true,
    value: encodeDer(tag.sequence, encodeDer(contextTag(0, true), encodeDer(tag.sequence, encodeUri(host)))),
  }),
  subjectKeyId: (id: Uint8Array): CertificateExtension => ({
    oid: '2.5.29.14',
    critical: false,
    value: encodeDer(tag.octetString, id),
  }),
  authorityKeyId: (id: Uint8Array): CertificateExtension => ({
    oid: '2.5.29.35',
    critical: false,
    value: encodeDer(tag.sequence, encodeDer(contextTag(0, false), id)),
  }),
} as const;

/** Name of a key: 160 bits of the SHA-256 of its bits (RFC 7093 §2, method 1). */
export function keyId(publicKey: KeyObject): Uint8Array {
  const info = new DerReader(publicKey.export({ format: 'der', type: 'spki' }));
  const body = info.enter(tag.sequence, 'the public key');
  body.read(tag.sequence, 'its algorithm');
  const bits = body.read(tag.bitString, 'its bits').subarray(1);
  return createHash('sha256').update(bits).digest().subarray(0, 20);
}

/** PEM text (RFC 7468) of a certificate. */
export function pemOfCertificate(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

function encodeUri(uri: string): Uint8Array {
  return encodeDer(contextTag(6, false), Buffer.from(uri, 'latin1'));
}

function encodeBits(unused: number, bytes: Iterable<number>): Uint8Array {
  return encodeDer(tag.bitString, Uint8Array.of(unused, ...bytes));
}

function encodeTime(time: number): Uint8Array {
  const digits = `${new Date(time).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
  return time < YEAR_2050
    ? encodeDer(tag.utcTime, Buffer.from(digits.slice(2)))
    : encodeDer(tag.generalizedTime, Buffer.from(digits));
}
