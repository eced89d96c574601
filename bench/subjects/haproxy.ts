import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type KeyMaterial, makeCertificates } from '../certificates.ts';
import { hasProgram, ManagedProcess, PROXY_UID } from '../process.ts';
import type { Backend, Site } from '../site.ts';
import { type Host, redirect } from '../topology.ts';
import { running, type Subject } from './subject.ts';

/** One thread: the subject has one core. Splicing is what HAProxy's own manual advises for bulk. */
const COMMON = `global
  nbthread 1
  maxconn 6000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 1h
  timeout server 1h
`;

/** HAProxy in TCP mode; a pair opens one TLS connection for each connection of a client. */
export const haproxy: Subject = {
  name: 'haproxy',
  roles: ['single', 'pair'],
  missing: async () => ((await hasProgram('haproxy')) ? undefined : 'haproxy is not installed'),
  async start(site, backend, role) {
    const directory = join(site.directory, `haproxy-${backend.index}`);
    mkdirSync(directory);
    // A port for each of the two services, as the near side has no cheaper way to tell them apart.
    const capture = 15100 + 2 * backend.index;
    await redirect(site.client, backend.http, capture, PROXY_UID);
    await redirect(site.client, backend.bulk, capture + 1, PROXY_UID);
    const start = (name: string, host: Host, body: string): ManagedProcess => {
      const file = join(directory, `${name}.cfg`);
      writeFileSync(file, COMMON + body);
      const placement = { namespace: host.namespace, part: 'subject', unprivileged: true } as const;
      return new ManagedProcess(`haproxy ${name}`, placement, ['haproxy', '-db', '-f', file]);
    };
    if (role === 'single') return running([start('single', site.client, single(capture))]);
    const keys = await makeCertificates(directory);
    const tunnel = 9300 + 2 * backend.index;
    const near = start('near', site.client, nearSide(site, capture, tunnel, keys));
    const far = start('far', site.server, farSide(site, backend, tunnel, keys));
    const port = { kind: 'tls', address: site.server.address, port: tunnel, ...keys } as const;
    return running([near, far], { port, pids: [far.pid] });
  },
};

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
