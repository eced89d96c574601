import { chmod, lstat, unlink } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect, type ListenOptions } from 'node:net';
import { parseEndpoint } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import type { AdminBackend } from './api.ts';
import { type Route, router } from './router.ts';
import { adminRoutes, metricsRoutes } from './routes.ts';

/** Bounds on what one caller can hold. */
const MOST_CONNECTIONS = 64;
const MOST_HEADER_BYTES = 8 * 1024;
const HEADERS_MS = 5_000;
const REQUEST_MS = 10_000;
const KEEP_ALIVE_MS = 5_000;
/** How long the owner of a socket that is there already may take to answer. */
const PROBE_MS = 1_000;
/** Owner and group may ask; membership of the group is how an operator is let in. */
const SOCKET_MODE = 0o660;

/** A server that listens; `close` ends it within `graceMs`, whatever its callers do. */
export interface AdminServer {
  /** Where it listens: a path, or ADDRESS:PORT. */
  readonly at: string;
  close(graceMs?: number): Promise<void>;
}

/** Serves the admin API on a unix socket. Throws MeshError `system` when another agent serves there. */
export async function serveAdmin(path: string, backend: AdminBackend): Promise<AdminServer> {
  await removeStale(path);
  const server = serverOf(adminRoutes(backend));
  // The socket must not be open to everybody even for the moment before chmod; bind happens inside of listen().
  const before = process.umask(0o777 & ~SOCKET_MODE);
  let listening: Promise<void>;
  try {
    listening = listen(server, { path }, path);
  } finally {
    process.umask(before);
  }
  await listening;
  await chmod(path, SOCKET_MODE);
  return { at: path, close: (graceMs) => close(server, graceMs) };
}

/** Serves `GET /metrics` and `GET /ready` on ADDRESS:PORT (`telemetry.metricsListen`). */
export async function serveMetrics(
  endpoint: string,
  backend: Pick<AdminBackend, 'ready'>,
  metrics: { readonly contentType: string; text(): Promise<string> },
): Promise<AdminServer> {
  const parsed = parseEndpoint(endpoint);
  if (parsed === undefined)
    throw new MeshError('configuration', 'operator', `${endpoint} is not ADDRESS:PORT`);
  const server = serverOf(metricsRoutes(backend, metrics));
  await listen(server, { host: parsed.ip, port: parsed.port }, endpoint);
  return { at: endpoint, close: (graceMs) => close(server, graceMs) };
}

function serverOf(routes: readonly Route[]): Server {
  const server = createServer(
    {
      maxHeaderSize: MOST_HEADER_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 1_000,
    },
    router(routes),
  );
  server.maxConnections = MOST_CONNECTIONS;
  server.on('clientError', (_, socket) => {
    if (socket.writable)
      socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    else socket.destroy();
  });
  return server;
}

function listen(server: Server, options: ListenOptions, at: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void =>
      reject(new MeshError('system', 'kernel', `cannot listen on ${at}: ${cause.code}`, { cause }));
    server.once('error', failed);
    server.listen(options, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

function close(server: Server, graceMs = 1_000): Promise<void> {
  return new Promise((resolve) => {
    const deadline = setTimeout(() => server.closeAllConnections(), graceMs);
    server.close(() => {
      clearTimeout(deadline);
      resolve();
    });
    server.closeIdleConnections();
  });
}

/** Removes the socket of an agent that is gone; never a file that is no socket, never one that answers. */
async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new MeshError('system', 'kernel', `cannot look at ${path}: ${error.code}`, { cause: error });
  });
  if (found === undefined) return;
  const refused = (why: string): MeshError => new MeshError('system', 'operator', `${path} ${why}`);
  if (!found.isSocket()) throw refused('is in the way: it is no socket');
  if (await answers(path)) throw refused('is served by another mesh-node');
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw refused(`is stale and cannot be removed: ${error.code}`);
  });
}

/** True unless it is certain that nobody listens: a stopped owner does not answer, yet the socket is its. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const decide = (answered: boolean): void => {
      clearTimeout(deadline);
      socket.destroy();
      resolve(answered);
    };
    const deadline = setTimeout(() => decide(true), PROBE_MS);
    socket.once('connect', () => decide(true));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      decide(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}
