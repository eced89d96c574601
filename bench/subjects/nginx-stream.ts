import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ManagedProcess, PROXY_UID } from '../process.ts';
import { redirect } from '../topology.ts';
import { running, type Subject } from './subject.ts';

/** Where Debian's libnginx-mod-stream puts the module. */
const MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

/** nginx's stream module. It cannot ask for the original destination, so the backend is written into its configuration. */
export const nginxStream: Subject = {
  name: 'nginx-stream',
  roles: ['single'],
  missing: async () => (existsSync(MODULE) ? undefined : 'nginx has no stream module here'),
  async start(site, backend) {
    const directory = join(site.directory, `nginx-stream-${backend.index}`);
    mkdirSync(directory);
    const capture = 15100 + 2 * backend.index;
    await redirect(site.client, backend.http, capture, PROXY_UID);
    await redirect(site.client, backend.bulk, capture + 1, PROXY_UID);
    const file = join(directory, 'nginx.conf');
    writeFileSync(
      file,
      `load_module ${MODULE};
daemon off; master_process off; pid /dev/null; error_log stderr;
events { worker_connections 16384; }
stream {
  proxy_timeout 1h;
  server { listen 127.0.0.1:${capture} backlog=4096; proxy_pass ${backend.http.address}:${backend.http.port}; }
  server { listen 127.0.0.1:${capture + 1} backlog=4096; proxy_pass ${backend.bulk.address}:${backend.bulk.port}; }
}
`,
    );
    const placement = { namespace: site.client.namespace, part: 'subject', unprivileged: true } as const;
    return running([new ManagedProcess('nginx stream', placement, ['nginx', '-e', 'stderr', '-c', file])]);
  },
};
