import { contextTag, DerError, DerReader, encodeDer, encodeOid, sameBytes, tag } from './der.ts';

/** Largest certificate that is read. Ours have about 700 bytes; 2 × 1024 granted names of usual length need 64 KB. */
export const MAX_CERTIFICATE_BYTES = 96 * 1024;
/** Most extensions in one certificate; ours have seven. */
const MAX_EXTENSIONS = 64;
/** Most subject alternative names in one certificate; ours have one. */
const MAX_ALTERNATIVE_NAMES = 64;
/** Most extended key usages in one certificate; ours have two. */
const MAX_KEY_PURPOSES = 64;

const oid = {
  subjectAltName: encodeOid('2.5.29.17'),
  basicConstraints: encodeOid('2.5.29.19'),
  keyUsage: encodeOid('2.5.29.15'),
  extendedKeyUsage: encodeOid('2.5.29.37'),
  serverAuth: encodeOid('1.3.6.1.5.5.7.3.1'),
  clientAuth: encodeOid('1.3.6.1.5.5.7.3.2'),
} as const;

/** The fields of a certificate that decide who a peer is. Signature and chain are OpenSSL's business, not ours. */
export interface CertificateFields {
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** The subject's name, in DER. */
  readonly subject: Uint8Array;
  /** Every URI among the subject alternative names, in order. */
  readonly uris: readonly string[];
  readonly isAuthority: boolean;
  readonly mayCertSign: boolean;
  readonly mayDigitalSign: boolean;
  readonly serverAuth: boolean;
  readonly clientAuth: boolean;
  /** Value of the extension with the given OID; undefined when the certificate has none. */
  readonly extension: Uint8Array | undefined;
}

/**
 * Reads an X.509 v3 certificate (RFC 5280) and the extension with the given OID (content octets).
 * Throws {@link DerError} on everything that is not one, and on extensions that occur twice.
 */
export function readCertificate(der: Uint8Array, extensionOid: Uint8Array): CertificateFields {
  if (der.length > MAX_CERTIFICATE_BYTES) {
    throw new DerError(`the certificate is larger than ${MAX_CERTIFICATE_BYTES} bytes`);
  }
  const outer = new DerReader(der);
  const certificate = outer.enter(tag.sequence, 'the certificate');
  outer.finish('the certificate');
  const tbs = certificate.enter(tag.sequence, 'the signed part');
  certificate.read(tag.sequence, 'the signature algorithm');
  certificate.read(tag.bitString, 'the signature');
  certificate.finish('the certificate');

  tbs.skipIf(contextTag(0, true)); // version
  tbs.read(tag.integer, 'the serial number');
  tbs.read(tag.sequence, 'the algorithm');
  tbs.read(tag.sequence, 'the issuer');
  const validity = tbs.enter(tag.sequence, 'the validity');
  const notBefore = readTime(validity);
  const notAfter = readTime(validity);
  validity.finish('the validity');
  const subject = encodeDer(tag.sequence, tbs.read(tag.sequence, 'the subject'));
  tbs.read(tag.sequence, 'the public key');
  tbs.skipIf(contextTag(1, false)); // issuerUniqueID
  tbs.skipIf(contextTag(2, false)); // subjectUniqueID

  const fields = {
    notBefore,
    notAfter,
    subject,
    uris: [] as readonly string[],
    isAuthority: false,
    mayCertSign: false,
    mayDigitalSign: false,
    serverAuth: false,
    clientAuth: false,
    extension: undefined as Uint8Array | undefined,
  };
  if (tbs.done) return fields;
  const list = tbs.enter(contextTag(3, true), 'the extensions');
  tbs.finish('the signed part');
  const extensions = list.enter(tag.sequence, 'the extensions');
  list.finish('the extensions');
  const seen: Uint8Array[] = [];
  while (!extensions.done) {
    if (seen.length === MAX_EXTENSIONS) throw new DerError(`it has more than ${MAX_EXTENSIONS} extensions`);
    const extension = extensions.enter(tag.sequence, 'an extension');
    const id = extension.read(tag.oid, 'the name of an extension');
    extension.skipIf(tag.boolean); // critical
    const value = extension.read(tag.octetString, 'the value of an extension');
    extension.finish('an extension');
    if (seen.some((other) => sameBytes(other, id))) throw new DerError('an extension occurs twice');
    seen.push(id);

    if (sameBytes(id, oid.subjectAltName)) fields.uris = readUris(value);
    else if (sameBytes(id, oid.basicConstraints)) fields.isAuthority = readIsAuthority(value);
    else if (sameBytes(id, oid.keyUsage)) Object.assign(fields, readKeyUsage(value));
    else if (sameBytes(id, oid.extendedKeyUsage)) Object.assign(fields, readPurposes(value));
    else if (sameBytes(id, extensionOid)) fields.extension = value;
  }
  return fields;
}

function readUris(value: Uint8Array): readonly string[] {
  const outer = new DerReader(value);
  const names = outer.enter(tag.sequence, 'the alternative names');
  outer.finish('the alternative names');
  const uris: string[] = [];
  for (let count = 0; names.next !== undefined; count++) {
    if (count === MAX_ALTERNATIVE_NAMES) {
      throw new DerError(`it has more than ${MAX_ALTERNATIVE_NAMES} alternative names`);
    }
    const kind = names.next;
    const name = names.read(kind, 'an alternative name');
    if (kind === contextTag(6, false)) uris.push(Buffer.from(name).toString('latin1'));
  }
  return uris;
}

function readIsAuthority(value: Uint8Array): boolean {
  const outer = new DerReader(value);
  const body = outer.enter(tag.sequence, 'the basic constraints');
  outer.finish('the basic constraints');
  // Whatever is written there but an explicit "false" counts as an authority: the caller refuses those.
  return body.next === tag.boolean && body.read(tag.boolean, 'the CA flag')[0] !== 0;
}

function readKeyUsage(value: Uint8Array): { mayDigitalSign: boolean; mayCertSign: boolean } {
  const outer = new DerReader(value);
  const bits = outer.read(tag.bitString, 'the key usage');
  outer.finish('the key usage');
  const first = bits[1] ?? 0; // bits[0] counts unused bits; bit 0 (digitalSignature) is the highest, 5 is keyCertSign
  return { mayDigitalSign: (first & 0x80) !== 0, mayCertSign: (first & 0x04) !== 0 };
}

function readPurposes(value: Uint8Array): { serverAuth: boolean; clientAuth: boolean } {
  const outer = new DerReader(value);
  const list = outer.enter(tag.sequence, 'the extended key usage');
  outer.finish('the extended key usage');
  const found = { serverAuth: false, clientAuth: false };
  for (let count = 0; !list.done; count++) {
    if (count === MAX_KEY_PURPOSES) throw new DerError(`it has more than ${MAX_KEY_PURPOSES} key usages`);
    const purpose = list.read(tag.oid, 'an extended key usage');
    if (sameBytes(purpose, oid.serverAuth)) found.serverAuth = true;
    if (sameBytes(purpose, oid.clientAuth)) found.clientAuth = true;
  }
  return found;
}

const UTC_TIME = /^(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/;
const GENERALIZED_TIME = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/;

/** UTCTime or GeneralizedTime in the one form of each that RFC 5280 §4.1.2.5 allows. */
function readTime(validity: DerReader): number {
  const short = validity.next === tag.utcTime;
  const bytes = validity.read(short ? tag.utcTime : tag.generalizedTime, 'a time of the validity');
  const match = (short ? UTC_TIME : GENERALIZED_TIME).exec(Buffer.from(bytes).toString('latin1'));
  if (match === null) throw new DerError('a time of the validity cannot be read');
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const fullYear = short ? (year >= 50 ? 1900 + year : 2000 + year) : year;
  const time = Date.UTC(fullYear, month - 1, day, hour, minute, second);
  const read = new Date(time);
  // Date.UTC rolls a 31 February over; a time that does not come back as written was none.
  if (
    read.getUTCMonth() !== month - 1 ||
    read.getUTCDate() !== day ||
    hour > 23 ||
    minute > 59 ||
    second > 59
  ) {
    throw new DerError('a time of the validity does not exist');
  }
  return time;
}
