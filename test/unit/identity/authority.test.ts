import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type Authority,
  initAuthority,
  issueNode,
  writeNodeBundle,
} from '../../../src/identity/authority.ts';

const base = mkdtempSync(join(tmpdir(), 'mesh-identity-'));
const caDirectory = join(base, 'ca');
let authority: Authority;

const web1 = {
  node: 'web1.dc1',
  callAs: ['orders', 'web.shop'],
  host: ['*'],
  relay: true,
  days: 30,
} as const;

beforeAll(async () => {
  authority = await initAuthority(caDirectory, { trustDomain: 'mesh.example', days: 365 });
});
afterAll(() => rmSync(base, { recursive: true }));

const mode = (path: string) => statSync(path).mode & 0o7777;
const openssl = (...args: string[]) => execFileSync('openssl', args, { encoding: 'utf8' });

describe('initAuthority', () => {
  test('keeps the key to its owner and leaves nothing else behind', () => {
    expect(mode(caDirectory)).toBe(0o700);
    expect(mode(join(caDirectory, 'ca.key'))).toBe(0o600);
    expect(mode(join(caDirectory, 'ca.crt'))).toBe(0o644);
    expect(readdirSync(caDirectory).sort()).toEqual(['ca.crt', 'ca.key']);
  });

  test('never overwrites an authority unless told to', async () => {
    const directory = join(base, 'ca-again');
    await initAuthority(directory, { trustDomain: 'mesh', days: 1 });
    const key = readFileSync(join(directory, 'ca.key'), 'utf8');
    await expect(initAuthority(directory, { trustDomain: 'mesh', days: 1 })).rejects.toThrow(
      /ca\.key exists already/,
    );
    expect(readFileSync(join(directory, 'ca.key'), 'utf8')).toBe(key);
    const second = await initAuthority(directory, { trustDomain: 'mesh', days: 1, overwrite: true });
    expect(readFileSync(join(directory, 'ca.key'), 'utf8')).not.toBe(key);
    expect(readFileSync(join(directory, 'ca.crt'), 'utf8')).toBe(second.certificate);
  });

  test('refuses names and lives that make no sense', async () => {
    const directory = join(base, 'never');
    await expect(initAuthority(directory, { trustDomain: 'No Name', days: 1 })).rejects.toThrow(
      /not a trust domain/,
    );
    for (const days of [0, -1, Number.NaN, 40_000]) {
      await expect(initAuthority(directory, { trustDomain: 'mesh', days })).rejects.toThrow(/days/);
    }
  });

  test('says where it cannot write', async () => {
    const file = join(base, 'a-file');
    writeFileSync(file, '');
    await expect(initAuthority(join(file, 'ca'), { trustDomain: 'mesh', days: 1 })).rejects.toThrow(file);
  });

  test('is what openssl calls an authority', () => {
    const text = openssl('x509', '-in', join(caDirectory, 'ca.crt'), '-noout', '-text');
    expect(text).toMatch(/CA:TRUE, pathlen:0/);
    expect(text).toMatch(/Certificate Sign, CRL Sign/);
    expect(text).toMatch(/URI:spiffe:\/\/mesh\.example\n/);
    expect(text).toMatch(/Permitted:\s+URI:mesh\.example/);
    expect(text).toMatch(/NIST CURVE: P-256/);
    expect(authority.expiresAt).toBe(new Date(new X509Certificate(authority.certificate).validTo).getTime());
  });
});

describe('issueNode', () => {
  test('makes certificates that openssl verifies for both ends', async () => {
    const bundle = await issueNode(caDirectory, web1);
    const directory = join(base, 'web1');
    await writeNodeBundle(directory, bundle);
    expect(mode(directory)).toBe(0o700);
    expect(mode(join(directory, 'node.key'))).toBe(0o600);
    expect(mode(join(directory, 'node.crt'))).toBe(0o644);
    const file = join(directory, 'node.crt');
    for (const purpose of ['sslclient', 'sslserver']) {
      const said = openssl(
        'verify',
        '-x509_strict',
        '-purpose',
        purpose,
        '-CAfile',
        join(directory, 'ca.crt'),
        file,
      );
      expect(said).toMatch(/OK/);
    }
    const text = openssl('x509', '-in', file, '-noout', '-text');
    expect(text).toMatch(
      /X509v3 Subject Alternative Name: (critical)?\s+URI:spiffe:\/\/mesh\.example\/node\/web1\.dc1\n/,
    );
    expect(text).toMatch(/TLS Web Server Authentication, TLS Web Client Authentication/);
    expect(text).toMatch(/Key Usage: critical\s+Digital Signature\n/);
    expect(text).toMatch(/CA:FALSE/);
    expect(text).toMatch(/2\.25\.71840250702572813510601094702453550979: /);
    const parsed = openssl('asn1parse', '-in', file);
    expect(parsed).toMatch(/2\.25\.71840250702572813510601094702453550979/);
  });

  test('gives every certificate a serial number of its own, and the key that belongs to it', async () => {
    const serials = new Set<string>();
    for (let i = 0; i < 50; i++) {
      const bundle = await issueNode(caDirectory, web1);
      serials.add(new X509Certificate(bundle.certificate).serialNumber);
    }
    expect(serials.size).toBe(50);
    for (const serial of serials) expect(serial.length).toBeLessThanOrEqual(32);
  });

  test('allows for clocks that are behind, and ends no later than its authority', async () => {
    const now = Date.now();
    const certificate = new X509Certificate((await issueNode(caDirectory, web1)).certificate);
    expect(new Date(certificate.validFrom).getTime()).toBeLessThan(now - 4 * 60_000);
    const long = await issueNode(caDirectory, { ...web1, days: 3650 });
    expect(long.expiresAt).toBe(authority.expiresAt);
  });

  test('cuts a long node name in the common name only', async () => {
    const node = `${'a'.repeat(60)}.${'b'.repeat(60)}`;
    const certificate = new X509Certificate((await issueNode(caDirectory, { ...web1, node })).certificate);
    expect(certificate.subject.length).toBeLessThan(70);
    expect(certificate.subjectAltName).toBe(`URI:spiffe://mesh.example/node/${node}`);
  });

  test('refuses what it cannot sign for', async () => {
    const issue = (change: object) => issueNode(caDirectory, { ...web1, ...change });
    await expect(issue({ node: 'Web_1' })).rejects.toThrow(/Web_1 is not a node name/);
    await expect(issue({ callAs: ['or ders'] })).rejects.toThrow(/or ders is not a service name/);
    await expect(issue({ host: Array.from({ length: 1025 }, (_, i) => `s${i}`) })).rejects.toThrow(/1024/);
    const wide = Array.from({ length: 1000 }, (_, i) => `s${i}.${'x'.repeat(60)}.${'y'.repeat(60)}`);
    await expect(issue({ host: wide })).rejects.toThrow(/more than 98304 bytes/);
    await expect(issue({ days: -1 })).rejects.toThrow(/days/);
    await expect(issue({ now: () => authority.expiresAt + 1000 })).rejects.toThrow(/has expired/);
    await expect(issueNode(join(base, 'nowhere'), web1)).rejects.toThrow(/nowhere\/ca\.crt cannot be read/);
  });

  test('refuses an authority whose key is another one, or open to others', async () => {
    const directory = join(base, 'mixed');
    await initAuthority(directory, { trustDomain: 'mesh', days: 1 });
    writeFileSync(join(directory, 'ca.crt'), authority.certificate);
    await expect(issueNode(directory, web1)).rejects.toThrow(/is not the key of/);
    execFileSync('chmod', ['0644', join(directory, 'ca.key')]);
    await expect(issueNode(directory, web1)).rejects.toThrow(/ca\.key has mode 0644/);
  });
});

describe('writeNodeBundle', () => {
  test('keeps what is there unless told to overwrite', async () => {
    const directory = join(base, 'web2');
    const first = await issueNode(caDirectory, { ...web1, node: 'web2' });
    const second = await issueNode(caDirectory, { ...web1, node: 'web2' });
    await writeNodeBundle(directory, first);
    await expect(writeNodeBundle(directory, second)).rejects.toThrow(/node\.key exists already/);
    expect(readFileSync(join(directory, 'node.key'), 'utf8')).toBe(first.key);
    await writeNodeBundle(directory, second, { overwrite: true });
    expect(readFileSync(join(directory, 'node.key'), 'utf8')).toBe(second.key);
    expect(readFileSync(join(directory, 'node.crt'), 'utf8')).toBe(second.certificate);
    expect(mode(join(directory, 'node.key'))).toBe(0o600);
  });

  test('takes the authority that is there when it is the same, and no other', async () => {
    const other = join(base, 'other-ca');
    await initAuthority(other, { trustDomain: 'mesh', days: 1 });
    const bundle = await issueNode(other, { ...web1, days: 1 });
    await writeNodeBundle(other, bundle);
    expect(readdirSync(other).sort()).toEqual(['ca.crt', 'ca.key', 'node.crt', 'node.key']);
    const stranger = await issueNode(caDirectory, web1);
    await expect(writeNodeBundle(join(base, 'web2'), { ...stranger, ca: 'x' })).rejects.toThrow(
      /exists already/,
    );
  });

  test('gives the files to the user that reads them', async () => {
    const directory = join(base, 'owned');
    const bundle = await issueNode(caDirectory, web1);
    await writeNodeBundle(directory, bundle, { owner: { uid: 65534, gid: 65534 } });
    expect(statSync(join(directory, 'node.key')).uid).toBe(65534);
    expect(statSync(directory).uid).toBe(65534);
  });
});
