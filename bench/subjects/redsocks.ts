import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasProgram, ManagedProcess, PROXY_UID } from '../process.ts';
import { redirect } from '../topology.ts';
import { running, type Subject } from './subject.ts';

/**
 * redsocks. It always hands on to another proxy: here a small SOCKS5 server on the server's host, whose CPU is not
 * counted. It is slower than redsocks, so redsocks' rate and times are those of both; its CPU for each request is its own.
 */
export const redsocks: Subject = {
  name: 'redsocks',
  roles: ['single'],
  missing: async () => ((await hasProgram('redsocks')) ? undefined : 'redsocks is not installed'),
  async start(site, backend) {
    const directory = join(site.directory, `redsocks-${backend.index}`);
    mkdirSync(directory);
    const capture = 15100 + 2 * backend.index;
    for (const to of [backend.http, backend.bulk]) await redirect(site.client, to, capture, PROXY_UID);
    const socksPort = 1080 + backend.index;
    const program = fileURLToPath(new URL('../clients/socks-server.js', import.meta.url));
    const socks = new ManagedProcess('SOCKS5 server', { namespace: site.server.namespace, part: 'server' }, [
      process.execPath,
      program,
      site.server.address,
      String(socksPort),
    ]);
    const file = join(directory, 'redsocks.conf');
    writeFileSync(
      file,
      `base { log_debug = off; log_info = off; daemon = off; redirector = iptables; }
redsocks {
  local_ip = 127.0.0.1; local_port = ${capture}; listenq = 4096;
  ip = ${site.server.address}; port = ${socksPort}; type = socks5;
}
`,
    );
    const placement = { namespace: site.client.namespace, part: 'subject', unprivileged: true } as const;
    const measured = running([new ManagedProcess('redsocks', placement, ['redsocks', '-c', file])]);
    return {
      ...measured,
      stop: async () => {
        await measured.stop();
        await socks.stop();
      },
    };
  },
};
