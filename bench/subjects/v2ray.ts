import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasProgram, ManagedProcess, PROXY_UID } from '../process.ts';
import { redirect } from '../topology.ts';
import { running, type Subject } from './subject.ts';

/** v2ray: `dokodemo-door` asks for the original destination, `freedom` dials it. */
export const v2ray: Subject = {
  name: 'v2ray',
  roles: ['single'],
  missing: async () => ((await hasProgram('v2ray')) ? undefined : 'v2ray is not installed'),
  async start(site, backend) {
    const directory = join(site.directory, `v2ray-${backend.index}`);
    mkdirSync(directory);
    const capture = 15100 + 2 * backend.index;
    for (const to of [backend.http, backend.bulk]) await redirect(site.client, to, capture, PROXY_UID);
    const file = join(directory, 'config.json');
    const inbound = {
      listen: '127.0.0.1',
      port: capture,
      protocol: 'dokodemo-door',
      settings: { network: 'tcp', followRedirect: true },
    };
    const config = { log: { loglevel: 'error' }, inbounds: [inbound], outbounds: [{ protocol: 'freedom' }] };
    writeFileSync(file, JSON.stringify(config));
    const placement = { namespace: site.client.namespace, part: 'subject', unprivileged: true } as const;
    return running([new ManagedProcess('v2ray', placement, ['v2ray', '-config', file])]);
  },
};
