import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Probe } from './probe.ts';
import { ManagedProcess, stopAll } from './process.ts';
import { createTopology, type Topology } from './topology.ts';

/** What nginx answers at `/`. */
export const BODY = 'hello world\n';
const HTTP_PORT = 8080;
const BULK_PORT = 5201;
/** How long the servers may take to answer the first time. */
const READY_TIMEOUT_MS = 10_000;

/** Where one subject's traffic goes: every subject has ports of its own, so that all can be up at the same time. */
export interface Backend {
  /** Position among the subjects; subjects derive their own listening ports from it. */
  readonly index: number;
  readonly http: { readonly address: string; readonly port: number };
  readonly bulk: { readonly address: string; readonly port: number };
}

/** A topology with servers in it and a probe beside the load generator. */
export interface Site extends Topology {
  readonly probe: Probe;
  readonly backends: readonly Backend[];
  /** Ends every process in it and removes it. */
  close(): Promise<void>;
}

/** Makes a topology and starts `count` backends in it. */
export async function createSite(count: number): Promise<Site> {
  const topology = await createTopology();
  const { server, client } = topology;
  const backends = Array.from({ length: count }, (_, index) => ({
    index,
    http: { address: server.address, port: HTTP_PORT + index },
    bulk: { address: server.address, port: BULK_PORT + index },
  }));
  startNginx(topology, backends);
  for (const { bulk } of backends) {
    new ManagedProcess('iperf3', { namespace: server.namespace, part: 'server' }, [
      'iperf3',
      '-s',
      '-B',
      bulk.address,
      '-p',
      String(bulk.port),
    ]);
  }
  const close = async (): Promise<void> => {
    await stopAll();
    topology.remove();
  };
  const site = { ...topology, backends, probe: new Probe(client.namespace), close };
  try {
    await waitForRoute(site, backends[0]!, 'direct');
  } catch (error) {
    await close();
    throw error;
  }
  return site;
}

/** One nginx process: `/` answers a fixed body, `/client` the address that the request came from. */
function startNginx(topology: Topology, backends: readonly Backend[]): void {
  const directory = join(topology.directory, 'nginx');
  mkdirSync(directory);
  const file = join(directory, 'nginx.conf');
  const listen = backends
    .map(({ http }) => `listen ${http.address}:${http.port} backlog=4096;`)
    .join('\n    ');
  writeFileSync(
    file,
    `daemon off; master_process off; user root; pid ${directory}/pid; error_log stderr;
events { worker_connections 16384; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600;
  client_body_temp_path ${directory}; proxy_temp_path ${directory}; fastcgi_temp_path ${directory};
  uwsgi_temp_path ${directory}; scgi_temp_path ${directory};
  server {
    ${listen}
    location / { return 200 "${BODY.trim()}\\n"; }
    location /client { return 200 "$remote_addr:$remote_port\\n"; }
  }
}
`,
  );
  new ManagedProcess('nginx', { namespace: topology.server.namespace, part: 'server' }, [
    'nginx',
    '-c',
    file,
  ]);
}

/**
 * Waits until requests to a backend are answered, and verifies the way they take: where the server sees the very port
 * that the client has, nothing stands between them. Throws when that does not happen in time, or no longer can.
 */
export async function waitForRoute(
  site: Site,
  backend: Backend,
  way: 'direct' | 'proxied',
  alive: () => boolean = () => true,
): Promise<void> {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  let last = '';
  while (Date.now() < deadline) {
    try {
      const { body, local } = await site.probe.exchange(backend.http, '/client');
      if ((body.trim() === local) === (way === 'direct')) return;
      last = `the client is ${local}, the server saw ${body.trim()}`;
    } catch (error) {
      last = String(error);
    }
    if (!alive()) throw new Error(`a process ended while it was waited for: ${last}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`requests did not go ${way} in ${READY_TIMEOUT_MS} ms: ${last}`);
}
