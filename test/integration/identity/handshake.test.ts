import { execFile } from 'node:child_process';
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  initAuthority,
  issueNode,
  type NodeBundle,
  type NodeOptions,
  writeNodeBundle,
} from '../../../src/identity/authority.ts';
import { readCertificate } from '../../../src/identity/certificate.ts';
import {
  buildCertificate,
  encodeName,
  extension,
  keyId,
  pemOfCertificate,
} from '../../../src/identity/certificate-builder.ts';
import { type CredentialTexts, NodeCredentials } from '../../../src/identity/node-credentials.ts';
import { grants, type PeerIdentity } from '../../../src/model/peer.ts';
import type { NodeName, ServiceName } from '../../../src/model/service.ts';

const run = promisify(execFile);
const base = mkdtempSync(join(tmpdir(), 'mesh-handshake-'));
const DAY = 86_400_000;

let authority: string;

function textsOf(bundle: NodeBundle): CredentialTexts {
  return { key: bundle.key, cert: bundle.certificate, ca: bundle.ca };
}

async function issue(node: string, change: Partial<NodeOptions> = {}, ca = 'ca'): Promise<CredentialTexts> {
  const options = { node, callAs: ['web'], host: ['orders'], relay: false, days: 30, ...change };
  return textsOf(await issueNode(join(base, ca), options));
}

function credentials(node: string, texts: CredentialTexts): NodeCredentials {
  return new NodeCredentials(texts, { trustDomain: 'mesh', node: node as NodeName });
}

/** What one end of a handshake made of the other: an identity or the reason why not. */
type Judgement = PeerIdentity | string;

function judge(own: NodeCredentials, socket: TLSSocket): Judgement {
  try {
    expect(socket.getProtocol()).toBe('TLSv1.3');
    return own.verifyPeer(socket.getPeerCertificate().raw ?? Buffer.alloc(0), socket.authorized);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** A real handshake on loopback, both certificates asked for; `offered` is what the client really presents. */
async function handshake(
  serverCredentials: NodeCredentials,
  clientCredentials: NodeCredentials,
  offered: { readonly key?: string; readonly cert?: string } = clientCredentials.current(),
): Promise<{ seenByServer: Judgement; seenByClient: Judgement }> {
  const server = createServer({
    ...serverCredentials.current(),
    requestCert: true,
    rejectUnauthorized: false, // refused with our own words, below
    minVersion: 'TLSv1.3',
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>;
    const client = connect({
      host: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
      ca: clientCredentials.current().ca,
      ...offered,
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined, // names are SPIFFE ids, judged by the verifier
      minVersion: 'TLSv1.3',
    });
    const [[serverSide]] = await Promise.all([accepted, once(client, 'secureConnect')]);
    const judged = {
      seenByServer: judge(serverCredentials, serverSide),
      seenByClient: judge(clientCredentials, client),
    };
    client.destroy();
    serverSide.destroy();
    return judged;
  } finally {
    server.close();
  }
}

beforeAll(async () => {
  await initAuthority(join(base, 'ca'), { trustDomain: 'mesh', days: 365 });
  await initAuthority(join(base, 'other-ca'), { trustDomain: 'mesh', days: 365 });
  await initAuthority(join(base, 'evil-ca'), { trustDomain: 'evil', days: 365 });
  authority = (await issue('any')).ca;
});
afterAll(() => rmSync(base, { recursive: true }));

describe('a handshake between two nodes', () => {
  test('tells each end who the other is and what it may do', async () => {
    const server = credentials('db1', await issue('db1'));
    const client = credentials('web1', await issue('web1', { callAs: ['*'], host: [], relay: true }));
    const { seenByServer, seenByClient } = await handshake(server, client);
    expect(seenByServer).toMatchObject({ node: 'web1', relay: true, expiresAt: client.expiresAt });
    expect(seenByClient).toMatchObject({ node: 'db1', relay: false });
    const [web1, db1] = [seenByServer, seenByClient] as [PeerIdentity, PeerIdentity];
    expect(grants(web1.callAs, 'anything' as ServiceName)).toBe(true);
    expect(grants(web1.host, 'orders' as ServiceName)).toBe(false);
    expect(grants(db1.callAs, 'web' as ServiceName)).toBe(true);
    expect(grants(db1.callAs, 'billing' as ServiceName)).toBe(false);
    expect(grants(db1.host, 'orders' as ServiceName)).toBe(true);
    expect(grants(db1.host, 'billing' as ServiceName)).toBe(false);
  });

  test('works with certificates of hundreds of granted names', async () => {
    const callAs = Array.from({ length: 1000 }, (_, i) => `service-${i}.shop`);
    const wide = credentials('db1', await issue('db1', { callAs }));
    const { seenByServer } = await handshake(credentials('web1', await issue('web1')), wide);
    expect((seenByServer as PeerIdentity).callAs.size).toBe(1000);
  });

  test('is refused by both ends when authorities differ, even for the same trust domain', async () => {
    const server = credentials('db1', await issue('db1'));
    const client = credentials('web1', await issue('web1', {}, 'other-ca'));
    const { seenByServer, seenByClient } = await handshake(server, client);
    expect(seenByServer).toMatch(/not signed by an authority that this node believes/);
    expect(seenByClient).toMatch(/not signed by an authority that this node believes/);
  });

  test('is refused for a certificate that has expired', async () => {
    const server = credentials('db1', await issue('db1'));
    const client = credentials('web1', await issue('web1'));
    const expired = await issue('web1', { days: 1, now: () => Date.now() - 2 * DAY });
    const { seenByServer, seenByClient } = await handshake(server, client, expired);
    expect(seenByServer).toMatch(/not signed|expired/);
    expect(seenByClient).toMatchObject({ node: 'db1' });
  });

  test('is refused for a certificate of another trust domain, also when its authority is believed', async () => {
    const evil = await issue('web1', {}, 'evil-ca');
    const server = credentials('db1', { ...(await issue('db1')), ca: authority + evil.ca });
    const client = credentials('web1', await issue('web1'));
    const { seenByServer } = await handshake(server, client, evil);
    expect(seenByServer).toMatch(/trust domain "evil", expected mesh/);
  });

  test('is refused for a caller without certificate', async () => {
    const server = credentials('db1', await issue('db1'));
    const client = credentials('web1', await issue('web1'));
    const { seenByServer } = await handshake(server, client, {});
    expect(seenByServer).toMatch(/not signed by an authority/);
  });

  test('is refused for an authority that calls itself a node', async () => {
    const offered = {
      key: await readFile(join(base, 'ca', 'ca.key'), 'utf8'),
      cert: await readFile(join(base, 'ca', 'ca.crt'), 'utf8'),
    };
    const server = credentials('db1', await issue('db1'));
    const client = credentials('web1', await issue('web1'));
    const { seenByServer } = await handshake(server, client, offered);
    expect(seenByServer).toMatch(/certificate of an authority|not signed/);
  });

  test('goes on with both authorities while one replaces the other', async () => {
    const [old, next] = [await issue('db1'), await issue('web1', {}, 'other-ca')];
    const both = old.ca + next.ca;
    const server = credentials('db1', { ...old, ca: both });
    const client = credentials('web1', { ...next, ca: both });
    const { seenByServer, seenByClient } = await handshake(server, client);
    expect(seenByServer).toMatchObject({ node: 'web1' });
    expect(seenByClient).toMatchObject({ node: 'db1' });
  });

  test('uses the new certificate after a reload, and a standing connection goes on', async () => {
    const own = credentials('db1', await issue('db1', { days: 10 }));
    const client = credentials('web1', await issue('web1'));
    const server = createServer({ ...own.current(), requestCert: true, minVersion: 'TLSv1.3' }, (socket) =>
      socket.pipe(socket),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const dial = async () => {
      const socket = connect({
        host: '127.0.0.1',
        port: (server.address() as AddressInfo).port,
        ...client.current(),
        checkServerIdentity: () => undefined,
      });
      await once(socket, 'secureConnect');
      return socket;
    };
    const standing = await dial();
    own.replace(await issue('db1', { days: 20 }));
    server.setSecureContext(own.current());
    const later = await dial();
    expect(judge(client, later)).toMatchObject({ node: 'db1', expiresAt: own.expiresAt });
    standing.write('still here');
    expect(String((await once(standing, 'data'))[0])).toBe('still here');
    standing.destroy();
    later.destroy();
    server.close();
  });
});

describe('the openssl program', () => {
  test('verifies our certificates, for both ends, and refuses strangers', async () => {
    const directory = join(base, 'node');
    await writeNodeBundle(
      directory,
      await issueNode(join(base, 'ca'), { node: 'db1', callAs: [], host: ['*'], relay: false, days: 3 }),
    );
    const file = join(directory, 'node.crt');
    const verify = (ca: string, purpose: string) =>
      run('openssl', [
        'verify',
        '-x509_strict',
        '-purpose',
        purpose,
        '-CAfile',
        join(base, ca, 'ca.crt'),
        file,
      ]);
    for (const purpose of ['sslserver', 'sslclient']) {
      expect((await verify('ca', purpose)).stdout).toMatch(/OK/);
      await expect(verify('other-ca', purpose)).rejects.toThrow(/verification failed/);
    }
    await expect(
      run('openssl', ['pkey', '-in', join(directory, 'node.key'), '-check', '-noout']),
    ).resolves.toBeDefined();
  });

  test('holds an authority to its own trust domain by the name constraint', async () => {
    // The authority of "evil" signs for "mesh": its key is put beside a certificate that names another domain.
    const key = createPrivateKey(await readFile(join(base, 'evil-ca', 'ca.key'), 'utf8'));
    const certificate = new X509Certificate(await readFile(join(base, 'evil-ca', 'ca.crt')));
    const publicKey = createPublicKey(key);
    const forged = join(base, 'forged.crt');
    const forge = (uri: string) =>
      writeFile(
        forged,
        pemOfCertificate(
          buildCertificate(
            {
              serial: Uint8Array.of(1),
              issuer: readCertificate(certificate.raw, new Uint8Array()).subject,
              subject: encodeName('db1'),
              notBefore: Date.now() - DAY,
              notAfter: Date.now() + DAY,
              publicKey,
              extensions: [
                extension.basicConstraints(false),
                extension.keyUsage('digital-signature'),
                extension.uris(uri),
                extension.authorityKeyId(keyId(publicKey)),
              ],
            },
            key,
          ),
        ),
      );
    const verify = () => run('openssl', ['verify', '-CAfile', join(base, 'evil-ca', 'ca.crt'), forged]);
    await forge('spiffe://evil/node/db1');
    expect((await verify()).stdout).toMatch(/OK/);
    await forge('spiffe://mesh/node/db1');
    await expect(verify()).rejects.toThrow(/permitted subtree violation/);
  });

  test('shakes hands with us as s_client', async () => {
    const own = credentials('db1', await issue('db1'));
    const directory = join(base, 'client');
    await writeNodeBundle(
      directory,
      await issueNode(join(base, 'ca'), { node: 'web1', callAs: ['web'], host: [], relay: false, days: 3 }),
    );
    const server = createServer({
      ...own.current(),
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>;
    const port = (server.address() as AddressInfo).port;
    const file = (name: string) => join(directory, name);
    const client = run('openssl', [
      's_client',
      '-connect',
      `127.0.0.1:${port}`,
      '-cert',
      file('node.crt'),
      '-key',
      file('node.key'),
      '-CAfile',
      file('ca.crt'),
      '-verify_return_error',
      '-tls1_3',
    ]);
    const [socket] = await accepted;
    expect(judge(own, socket)).toMatchObject({ node: 'web1' });
    socket.end();
    expect((await client).stdout).toMatch(/Verify return code: 0 \(ok\)/);
    server.close();
  });
});
