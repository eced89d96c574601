import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  buildCertificate,
  type CertificateExtension,
  encodeName,
  extension,
  keyId,
} from '../../../src/identity/certificate-builder.ts';
import { encodeDer, tag } from '../../../src/identity/der.ts';
import { encodeGrants, grantsOid, MAX_GRANTED_NAMES } from '../../../src/identity/grants.ts';
import { PeerVerifier } from '../../../src/identity/peer-verifier.ts';
import { MeshError } from '../../../src/model/errors.ts';
import { grants as covers } from '../../../src/model/peer.ts';
import type { ServiceName } from '../../../src/model/service.ts';

const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const NOW = Date.UTC(2026, 5, 1);
const DAY = 86_400_000;
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

const names = (...list: string[]) => new Set(list as ServiceName[]);
const value = encodeGrants({ callAs: names('orders', 'web.shop'), host: names('*'), relay: true });
const grantsExtension: CertificateExtension = { oid: grantsOid, critical: false, value };

interface Change {
  readonly uris?: readonly string[];
  readonly grants?: Uint8Array | undefined;
  readonly purposes?: readonly string[];
  readonly authority?: boolean;
  readonly usage?: 'sign-certificates' | 'digital-signature';
  readonly more?: readonly CertificateExtension[];
  readonly notBefore?: number;
  readonly notAfter?: number;
}

/** A certificate of node web1, changed in one way. The signature does not matter here: OpenSSL judges that. */
function forge(change: Change = {}): Uint8Array {
  const grantsValue = 'grants' in change ? change.grants : value;
  return buildCertificate(
    {
      serial: Uint8Array.of(1),
      issuer: encodeName('authority'),
      subject: encodeName('web1'),
      notBefore: change.notBefore ?? NOW - DAY,
      notAfter: change.notAfter ?? NOW + DAY,
      publicKey: keys.publicKey,
      extensions: [
        extension.basicConstraints(change.authority ?? false),
        extension.keyUsage(change.usage ?? 'digital-signature'),
        extension.extendedKeyUsage(...(change.purposes ?? [SERVER_AUTH, CLIENT_AUTH])),
        extension.uris(...(change.uris ?? ['spiffe://mesh/node/web1'])),
        ...(grantsValue === undefined ? [] : [{ ...grantsExtension, value: grantsValue }]),
        extension.subjectKeyId(keyId(keys.publicKey)),
        ...(change.more ?? []),
      ],
    },
    keys.privateKey,
  );
}

function reasonFor(der: Uint8Array, chainAuthorized = true, now = NOW): string {
  try {
    new PeerVerifier('mesh', () => now).verify(der, chainAuthorized);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    expect(error).toMatchObject({ code: 'tls', source: 'peer', retry: 'safe' });
    return error.message;
  }
  return 'accepted';
}

describe('a peer certificate', () => {
  test('says who the peer is and what it may do', () => {
    const identity = new PeerVerifier('mesh', () => NOW).verify(forge(), true);
    expect(identity).toMatchObject({ node: 'web1', relay: true, expiresAt: NOW + DAY });
    expect([...identity.callAs]).toEqual(['orders', 'web.shop']);
    expect(covers(identity.callAs, 'orders' as ServiceName)).toBe(true);
    expect(covers(identity.callAs, 'billing' as ServiceName)).toBe(false);
    expect(covers(identity.host, 'billing' as ServiceName)).toBe(true);
  });

  test('is not even read without the word of OpenSSL', () => {
    expect(reasonFor(forge(), false)).toMatch(/not signed by an authority/);
    expect(reasonFor(Uint8Array.of(1, 2, 3), false)).toMatch(/not signed by an authority/);
  });

  test.each<[string, Change, RegExp]>([
    ['another trust domain', { uris: ['spiffe://evil/node/web1'] }, /trust domain "evil", expected mesh/],
    ['no SPIFFE id', { uris: [] }, /no SPIFFE id/],
    ['two of them', { uris: ['spiffe://mesh/node/a', 'spiffe://mesh/node/b'] }, /2 URI names/],
    ['another URI', { uris: ['https://mesh/node/web1'] }, /not a SPIFFE id/],
    ['an id that is no node', { uris: ['spiffe://mesh/user/web1'] }, /names no node/],
    ['an id with a port', { uris: ['spiffe://mesh:80/node/web1'] }, /not a SPIFFE id/],
    ['the id of the domain', { uris: ['spiffe://mesh'] }, /names no node/],
    ['a longer path', { uris: ['spiffe://mesh/node/web1/x'] }, /names no node/],
    ['an upper-case name', { uris: ['spiffe://mesh/node/Web1'] }, /names no node/],
    ['a query', { uris: ['spiffe://mesh/node/web1?x'] }, /names no node/],
    [
      'a NUL',
      { uris: ['spiffe://mesh/node/web1\0.evil'] },
      /names no node: "spiffe:\/\/mesh\/node\/web1\?\.evil"/,
    ],
    ['no grants', { grants: undefined }, /says nothing about what/],
    ['grants that are no DER', { grants: Buffer.from('orders') }, /malformed extension/],
    [
      'grants with more behind',
      { grants: Buffer.concat([value, Buffer.from([5, 0])]) },
      /bytes after its end/,
    ],
    ['only a server', { purposes: [SERVER_AUTH] }, /lacks the extended key usage/],
    ['only a client', { purposes: [CLIENT_AUTH] }, /lacks the extended key usage/],
    ['an authority', { authority: true }, /certificate of an authority/],
    ['a key that signs certificates', { usage: 'sign-certificates' }, /certificate of an authority/],
    ['an extension twice', { more: [grantsExtension] }, /an extension occurs twice/],
    ['a life that is over', { notAfter: NOW - 1000 }, /node web1 expired at 2026-05-31T23:59:59/],
    ['a life to come', { notBefore: NOW + 2000 }, /not valid before 2026-06-01T00:00:02/],
  ])('with %s is refused in words', (_, change, reason) => {
    expect(reasonFor(forge(change))).toMatch(reason);
  });

  test('with too many names, or a name that is none, is refused', () => {
    const list = (texts: readonly string[]) =>
      encodeDer(tag.sequence, ...texts.map((text) => encodeDer(tag.utf8String, Buffer.from(text))));
    const grantsOf = (texts: readonly string[], version = 1, relay = 0xff) =>
      encodeDer(
        tag.sequence,
        encodeDer(tag.integer, Uint8Array.of(version)),
        list(texts),
        list([]),
        encodeDer(tag.boolean, Uint8Array.of(relay)),
      );
    const many = Array.from({ length: MAX_GRANTED_NAMES + 1 }, (_, i) => `s${i}`);
    expect(reasonFor(forge({ grants: grantsOf(many.slice(1)) }))).toBe('accepted');
    expect(reasonFor(forge({ grants: grantsOf(many) }))).toMatch(/more than 1024 names/);
    expect(reasonFor(forge({ grants: grantsOf(['örders']) }))).toMatch(/not a service name/);
    expect(reasonFor(forge({ grants: grantsOf(['']) }))).toMatch(/not a service name/);
    expect(reasonFor(forge({ grants: grantsOf([], 2) }))).toMatch(/version that this agent does not know/);
    expect(reasonFor(forge({ grants: grantsOf([], 1, 1) }))).toMatch(/neither true nor false/);
  });

  test('of a later version of the agent is read as far as it is known', () => {
    const body = value.subarray(2); // the header has two bytes: the value is short
    const later = encodeDer(tag.sequence, body, encodeDer(tag.utf8String, Buffer.from('news')));
    expect(reasonFor(forge({ grants: later }))).toBe('accepted');
  });

  test('is judged by the clock each time, also when it is remembered', () => {
    let now = NOW;
    const verifier = new PeerVerifier('mesh', () => now);
    const der = forge();
    const identity = verifier.verify(der, true);
    expect(verifier.verify(der, true)).toBe(identity);
    now = NOW + DAY + 1;
    expect(() => verifier.verify(der, true)).toThrow(/expired/);
    now = NOW;
    expect(() => verifier.verify(der, false)).toThrow(/not signed/);
  });

  test('that is missing, huge or cut short is refused', () => {
    expect(reasonFor(new Uint8Array())).toMatch(/is missing/);
    expect(reasonFor(new Uint8Array(200_000))).toMatch(/larger than/);
    const whole = forge();
    for (let length = 1; length < whole.length; length++) {
      expect(reasonFor(whole.subarray(0, length))).toMatch(/cannot be read/);
    }
    expect(reasonFor(Buffer.concat([whole, Uint8Array.of(0)]))).toMatch(/bytes after its end/);
  });

  test('may carry any time of two centuries', () => {
    for (const year of [1950, 1999, 2049, 2050, 2130]) {
      const notAfter = Date.UTC(year, 11, 31, 23, 59, 59);
      const now = notAfter - DAY;
      const der = forge({ notBefore: now - DAY, notAfter });
      const identity = new PeerVerifier('mesh', () => now).verify(der, true);
      expect(identity.expiresAt).toBe(notAfter);
    }
  });
});
