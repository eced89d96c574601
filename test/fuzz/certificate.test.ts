import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { buildCertificate, encodeName, extension, keyId } from '../../src/identity/certificate-builder.ts';
import { encodeGrants, grantsOid } from '../../src/identity/grants.ts';
import { PeerVerifier } from '../../src/identity/peer-verifier.ts';
import { MeshError } from '../../src/model/errors.ts';
import { parseNodeName, parseServiceName, type ServiceName } from '../../src/model/service.ts';

const RUNS = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const SEED = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`certificate fuzz: MESH_FUZZ_SEED=${SEED} MESH_FUZZ_RUNS=${RUNS}`);

const NOW = Date.UTC(2026, 5, 1);
const DAY = 86_400_000;

/** Whole numbers below a bound (mulberry32). */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function genuine(): Uint8Array {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const grants = {
    callAs: new Set(['orders', 'web.shop'] as ServiceName[]),
    host: new Set(['*'] as const),
    relay: true,
  };
  return buildCertificate(
    {
      serial: Uint8Array.of(0, 0xff, 2, 3),
      issuer: encodeName('authority'),
      subject: encodeName('web1'),
      notBefore: NOW - DAY,
      notAfter: NOW + DAY,
      publicKey: keys.publicKey,
      extensions: [
        extension.basicConstraints(false),
        extension.keyUsage('digital-signature'),
        extension.extendedKeyUsage('1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'),
        extension.uris('spiffe://mesh/node/web1'),
        { oid: grantsOid, critical: false, value: encodeGrants(grants) },
        extension.subjectKeyId(keyId(keys.publicKey)),
      ],
    },
    keys.privateKey,
  );
}

/** Octets that mean something to a DER reader. */
const SPICE = [
  0x00, 0x01, 0x02, 0x05, 0x06, 0x0c, 0x17, 0x18, 0x30, 0x31, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0x86, 0xa0,
  0xa3, 0xff,
];

function mutate(original: Uint8Array, random: (below: number) => number): Uint8Array {
  let bytes = Array.from(original);
  for (let edits = 1 + random(6); edits > 0; edits--) {
    const at = random(bytes.length + 1);
    switch (random(7)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes[at] = SPICE[random(SPICE.length)]!;
        break;
      case 2:
        if (at < bytes.length) bytes[at]! ^= 1 << random(8);
        break;
      case 3:
        bytes.splice(at, random(9));
        break;
      case 4:
        bytes.splice(at, 0, ...Array.from({ length: random(9) }, () => SPICE[random(SPICE.length)]!));
        break;
      case 5: {
        const from = random(bytes.length + 1);
        bytes.splice(at, 0, ...bytes.slice(from, from + random(64)));
        break;
      }
      case 6:
        if (random(10) === 0) bytes = bytes.slice(0, at);
        break;
    }
  }
  return Uint8Array.from(bytes);
}

/** Two readers that see different names in one certificate are how such checks are got round. */
function agreesWithOpenSsl(der: Uint8Array, node: string): void {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(der);
  } catch {
    return; // stricter than ours, for example about the key: such a peer never gets this far
  }
  expect(certificate.subjectAltName).toContain(`URI:spiffe://mesh/node/${node}`);
  expect(certificate.ca).toBe(false);
  expect(Date.parse(certificate.validTo)).toBeGreaterThanOrEqual(NOW);
}

/** The verifier either refuses in words or gives an identity whose every part is well formed. */
function judge(verifier: PeerVerifier, der: Uint8Array): 'accepted' | 'refused' {
  try {
    const { node, callAs, host, relay, expiresAt } = verifier.verify(der, true);
    expect(parseNodeName(node)).toBe(node);
    for (const name of [...callAs, ...host])
      expect(name === '*' || parseServiceName(name) === name).toBe(true);
    expect(typeof relay).toBe('boolean');
    expect(expiresAt).toBeGreaterThanOrEqual(NOW);
    agreesWithOpenSsl(der, node);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    expect(error).toMatchObject({ code: 'tls', source: 'peer' });
    expect(error.message).toMatch(/^the peer's certificate [ -~…]{1,400}$/);
    return 'refused';
  }
}

describe('hostile certificates', () => {
  test('bent ones are refused in words or read right', () => {
    const random = generator(SEED);
    const verifier = new PeerVerifier('mesh', () => NOW);
    const original = genuine();
    expect(judge(verifier, original)).toBe('accepted');
    const counts = { accepted: 0, refused: 0 };
    for (let run = 0; run < RUNS; run++) {
      const der = mutate(original, random);
      try {
        counts[judge(verifier, der)]++;
      } catch (error) {
        throw new Error(`seed ${SEED}, run ${run}: ${Buffer.from(der).toString('hex')}`, { cause: error });
      }
    }
    // Both ways were taken: signature, key and names may be bent without harm here.
    expect(counts.accepted).toBeGreaterThan(0);
    expect(counts.refused).toBeGreaterThan(counts.accepted);
  });

  test('noise is refused in words', () => {
    const random = generator(SEED + 1);
    const verifier = new PeerVerifier('mesh', () => NOW);
    for (let run = 0; run < RUNS; run++) {
      const der = Uint8Array.from({ length: 1 + random(120) }, () =>
        random(3) === 0 ? random(256) : SPICE[random(SPICE.length)]!,
      );
      expect(judge(verifier, der)).toBe('refused');
    }
  });

  // Kept cases: what a DER reader is most easily brought down with.
  test.each([
    ['indefinite length', '3080a0030201020000'],
    ['a length of 4 GB', '3084ffffffff'],
    ['a length that overflows', '3088ffffffffffffffff'],
    ['a length of its own length', '30ff'],
    ['a sequence in a sequence, forty thousand deep', '3082ffff'.repeat(20_000)],
    ['only headers', '3000'.repeat(100)],
    ['a long form for a short length', '308101ff'],
    ['a tag of many octets', '3f8181818101'],
  ])('%s', (_, hex) => {
    expect(judge(new PeerVerifier('mesh', () => NOW), Buffer.from(hex, 'hex'))).toBe('refused');
  });
});
