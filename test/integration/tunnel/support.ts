import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { configSchema } from '../../../src/config/schema.ts';
import { parseIp } from '../../../src/model/address.ts';
import { MeshError } from '../../../src/model/errors.ts';
import type { PeerIdentity } from '../../../src/model/peer.ts';
import {
  type InstanceId,
  type NodeName,
  parseNodeName,
  parseServiceName,
  type ServiceName,
} from '../../../src/model/service.ts';
import { TunnelAcceptor } from '../../../src/tunnel/accept.ts';
import type { TunnelContext, TunnelSettings } from '../../../src/tunnel/context.ts';
import type { TunnelCredentials, TunnelKeyPair } from '../../../src/tunnel/credentials.ts';
import type { TunnelTarget } from '../../../src/tunnel/dial.ts';
import type { OpenRequest } from '../../../src/tunnel/open-request.ts';
import { TunnelPool } from '../../../src/tunnel/pool.ts';
import type { SessionEvents, TunnelSession } from '../../../src/tunnel/session.ts';
import type { TunnelStream } from '../../../src/tunnel/stream.ts';

const DEADLINE_MS = 10_000;

/** Waits until `condition` holds; fails with `what` when it does not within the deadline. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export const node = (name: string): NodeName => parseNodeName(name)!;
export const service = (name: string): ServiceName => parseServiceName(name)!;
export const openEcho: OpenRequest = {
  kind: 'service',
  service: service('echo'),
  instance: 'e1' as InstanceId,
};

/** An authority made by the openssl command, which signs keys for nodes. */
export class TestAuthority {
  readonly #directory = mkdtempSync(join(tmpdir(), 'mntun-'));
  readonly certificate: string;

  constructor(name: string) {
    this.#run(
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'],
      ['-subj', `/CN=${name}`, '-keyout', 'ca.key', '-out', 'ca.crt'],
      ['-addext', 'basicConstraints=critical,CA:TRUE'],
    );
    this.certificate = this.#read('ca.crt');
  }

  /** A key pair whose certificate says `name`. */
  issue(name: string): TunnelKeyPair {
    this.#run(
      ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${name}`],
      ['-keyout', 'node.key', '-out', 'node.csr'],
    );
    this.#run(
      ['x509', '-req', '-in', 'node.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'],
      ['-days', '1', '-out', 'node.crt'],
    );
    return { key: this.#read('node.key'), cert: this.#read('node.crt'), ca: this.certificate };
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true });
  }

  #read(file: string): string {
    return readFileSync(join(this.#directory, file), 'utf8');
  }

  #run(...args: string[][]): void {
    execFileSync('openssl', args.flat(), { cwd: this.#directory, stdio: 'pipe' });
  }
}

/** Credentials that believe every certificate of the authority for the name it says. */
export class TestCredentials implements TunnelCredentials {
  pair: TunnelKeyPair;
  /** What its peers' certificates say beyond their name; by default everything but `relay`. */
  peersMay: Partial<PeerIdentity> = {};

  constructor(pair: TunnelKeyPair) {
    this.pair = pair;
  }

  current(): TunnelKeyPair {
    return this.pair;
  }

  verifyPeer(raw: Buffer, chainAuthorized: boolean): PeerIdentity {
    const name = /CN=(.*)/.exec(new X509Certificate(raw).subject)?.[1];
    if (!chainAuthorized || name === undefined) throw new MeshError('tls', 'peer', 'not believed');
    const everything = new Set(['*'] as const);
    const may = { callAs: everything, host: everything, relay: false, expiresAt: 0, ...this.peersMay };
    return { node: node(name), ...may };
  }
}

/** The defaults, with what a test changes. */
export function settings(change: Partial<TunnelSettings> = {}): TunnelSettings {
  return { ...configSchema.parse({}).tunnel, ...change };
}

const write = () => {};

export function context(change: Partial<TunnelSettings> = {}, epoch = 1n): TunnelContext {
  return {
    settings: settings(change),
    scheduler: { afterBatch: (task) => queueMicrotask(task) },
    log: { debug: write, info: write, warn: write },
    epoch,
  };
}

export function target(name: string, port: number): TunnelTarget {
  return { node: node(name), via: { ip: parseIp('127.0.0.1')!, port }, key: `${name}:${port}` };
}

/** A stream as the callee was offered it. */
export interface Offer {
  readonly open: OpenRequest;
  readonly stream: TunnelStream;
  readonly session: TunnelSession;
}

/** Sends back what comes, with backpressure. */
export function echo({ stream }: Offer): void {
  stream.handler = {
    data: (bytes) => {
      if (!stream.write(bytes)) stream.pause();
    },
    end: () => stream.end(),
    drain: () => stream.resume(),
    close() {},
  };
  stream.accept();
  stream.resume();
}

/** One acceptor and one pool that dials it, over real TLS on loopback. */
export interface Pair {
  readonly acceptor: TunnelAcceptor;
  readonly pool: TunnelPool;
  /** The pool's. */
  readonly credentials: TestCredentials;
  /** Outcomes of the pool's dials. */
  readonly dials: readonly string[];
  readonly target: TunnelTarget;
  readonly offers: Offer[];
  readonly port: number;
  /** What is done with offered streams; by default they are kept in `offers` only. */
  onOffer: (offer: Offer) => void;
  close(): void;
}

export async function makePair(
  authority: TestAuthority,
  options: {
    readonly server?: Partial<TunnelSettings>;
    readonly client?: Partial<TunnelSettings>;
    readonly through?: (port: number) => Promise<number>;
    readonly events?: Partial<SessionEvents>;
  } = {},
): Promise<Pair> {
  const offers: Offer[] = [];
  const acceptor = new TunnelAcceptor(
    context(options.server),
    new TestCredentials(authority.issue('server')),
    {
      ...options.events,
      stream: (open, stream, session) => {
        const offer = { open, stream, session };
        offers.push(offer);
        pair.onOffer(offer);
      },
    },
  );
  const dials: string[] = [];
  const credentials = new TestCredentials(authority.issue('client'));
  const pool = new TunnelPool(context(options.client), credentials, {
    dialled: (outcome) => dials.push(outcome),
  });
  const listening = await acceptor.listen({ host: '127.0.0.1', port: 0 });
  const port = options.through === undefined ? listening : await options.through(listening);
  const pair: Pair = {
    acceptor,
    pool,
    credentials,
    dials,
    target: target('server', port),
    offers,
    port,
    onOffer: () => {},
    close: () => {
      pool.close();
      acceptor.close();
    },
  };
  return pair;
}
