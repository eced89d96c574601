import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ManagedProcess, PROXY_UID } from '../process.ts';
import { redirect } from '../topology.ts';
import { otherServices } from './services.ts';
import { running, type Subject } from './subject.ts';

/** Connections that nginx keeps to the service: more than any scenario has callers. */
const KEPT = 256;

/** nginx as it reads HTTP: a server for each service, found by the request's host, with kept connections to the measured one. */
export const nginx: Subject = {
  name: 'nginx',
  roles: ['single'],
  protocols: ['http'],
  missing: async () => undefined,
  async start(site, backend) {
    const directory = join(site.directory, `nginx-${backend.index}`);
    mkdirSync(directory);
    const capture = 15100 + 2 * backend.index;
    await redirect(site.client, backend.http, capture, PROXY_UID);
    const { address, port } = backend.http;
    const servers = otherServices.map(
      ({ name, address: at }) => `
  server { listen 127.0.0.1:${capture}; server_name ${name} ${at}; location / { proxy_pass http://${at}; } }`,
    );
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    const file = join(directory, 'nginx.conf');
    writeFileSync(
      file,
      `daemon off; master_process off; pid /dev/null; error_log stderr;
events { worker_connections 16384; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; tcp_nodelay on;
  ${temporary.map((kind) => `${kind}_temp_path ${directory};`).join(' ')}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto http;
  proxy_set_header X-Request-Id $request_id;
  upstream measured { server ${address}:${port}; keepalive ${KEPT}; keepalive_requests 1000000000; keepalive_timeout 3600; }
  server { listen 127.0.0.1:${capture} backlog=4096; server_name ${address}; location / { proxy_pass http://measured; } }
${servers.join('')}
}
`,
    );
    const placement = { namespace: site.client.namespace, part: 'subject', unprivileged: true } as const;
    return running([new ManagedProcess('nginx', placement, ['nginx', '-e', 'stderr', '-c', file])]);
  },
};
