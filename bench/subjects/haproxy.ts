import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KeyMaterial, makeCertificates } from '../certificates.ts';
import { hasProgram, ManagedProcess, PROXY_UID } from '../process.ts';
import type { Backend, Site } from '../site.ts';
import { type Host, redirect } from '../topology.ts';
import { nearHttp, singleHttp } from './haproxy-http.ts';
import { type Protocol, type Role, type RunningSubject, running, type Subject } from './subject.ts';

/** Settings that differ between the two ways of running HAProxy. */
interface Tuning {
  readonly global: string;
  readonly defaults: string;
}

/** One thread: the subject has one core. */
const common = (tuning: Tuning): string => `global
  nbthread 1
  maxconn 6000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  ${tuning.global}
defaults
  mode tcp
  ${tuning.defaults}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
`;

/** HAProxy as it is usually run; of TCP a pair opens one TLS connection for each connection of a client. */
export const haproxy: Subject = {
  name: 'haproxy',
  roles: ['single', 'pair'],
  protocols: ['tcp', 'http'],
  missing,
  start: (site, backend, role, protocol) =>
    start(site, backend, role, { global: '', defaults: 'option splice-auto' }, protocol),
};

/**
 * HAProxy set up for bulk and nothing else: it splices always (left to itself it seldom does when the client is the one
 * who sends), and between TLS ends, where it cannot, its buffers are 256 KiB, twice for every connection.
 */
export const haproxyBulk: Subject = {
  name: 'haproxy-bulk',
  roles: ['single', 'pair'],
  scenarios: ['bulk', 'tunnel-bulk'],
  missing,
  start: (site, backend, role) =>
    start(site, backend, role, {
      global: 'tune.bufsize 262144',
      defaults: 'option splice-request\n  option splice-response',
    }),
};

async function missing(): Promise<string | undefined> {
  return (await hasProgram('haproxy')) ? undefined : 'haproxy is not installed';
}

async function start(
  site: Site,
  backend: Backend,
  role: Role,
  tuning: Tuning,
  protocol: Protocol = 'tcp',
): Promise<RunningSubject> {
  const directory = join(site.directory, `haproxy-${backend.index}`);
  mkdirSync(directory);
  // A port for each of the two services, as the near side has no cheaper way to tell them apart.
  const capture = 15100 + 2 * backend.index;
  await redirect(site.client, backend.http, capture, PROXY_UID);
  await redirect(site.client, backend.bulk, capture + 1, PROXY_UID);
  const launch = (name: string, host: Host, body: string): ManagedProcess => {
    const file = join(directory, `${name}.cfg`);
    writeFileSync(file, common(tuning) + body);
    const placement = { namespace: host.namespace, part: 'subject', unprivileged: true } as const;
    return new ManagedProcess(`haproxy ${name}`, placement, ['haproxy', '-db', '-f', file]);
  };
  const isHttp = protocol === 'http';
  if (role === 'single') {
    const body = isHttp ? singleHttp(directory, capture, backend) : single(capture);
    return running([launch('single', site.client, body)]);
  }
  const keys = await makeCertificates(directory);
  const tunnel = 9300 + 2 * backend.index;
  const near = launch(
    'near',
    site.client,
    isHttp
      ? nearHttp(site, directory, { capture, tunnel }, backend, keys)
      : nearSide(site, capture, tunnel, keys),
  );
  const far = launch('far', site.server, farSide(site, backend, tunnel, keys));
  const port = { kind: 'tls', address: site.server.address, port: tunnel, ...keys } as const;
  return running([near, far], { port, pids: [far.pid] });
}

/** Address 0.0.0.0 and port 0 stand for the original destination of a redirected connection. */
const single = (capture: number): string => `
listen capture
  bind 127.0.0.1:${capture} backlog 4096
  bind 127.0.0.1:${capture + 1} backlog 4096
  server original 0.0.0.0:0
`;

function nearSide(site: Site, capture: number, tunnel: number, keys: KeyMaterial): string {
  const tls = `ssl crt ${keys.bundle} ca-file ${keys.authority} verify required verifyhost ${keys.host}`;
  return `
listen http
  bind 127.0.0.1:${capture} backlog 4096
  server far ${site.server.address}:${tunnel} ${tls}
listen bulk
  bind 127.0.0.1:${capture + 1} backlog 4096
  server far ${site.server.address}:${tunnel + 1} ${tls}
`;
}

function farSide(site: Site, backend: Backend, tunnel: number, keys: KeyMaterial): string {
  const tls = `ssl crt ${keys.bundle} ca-file ${keys.authority} verify required`;
  return `
listen http
  bind ${site.server.address}:${tunnel} backlog 4096 ${tls}
  server service ${backend.http.address}:${backend.http.port}
listen bulk
  bind ${site.server.address}:${tunnel + 1} backlog 4096 ${tls}
  server service ${backend.bulk.address}:${backend.bulk.port}
`;
}
