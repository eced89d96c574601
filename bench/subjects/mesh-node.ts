import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import type { ConfigInput } from '../../src/config/schema.ts';
import { ManagedProcess, PROXY_UID, run } from '../process.ts';
import type { Backend, Site } from '../site.ts';
import type { Host } from '../topology.ts';
import { otherServices } from './services.ts';
import { type Protocol, type Role, running, type Subject } from './subject.ts';

/** The built product: `npm run bench` builds it first. */
const PROGRAM = fileURLToPath(new URL('../../../dist/main.js', import.meta.url));
const TRUST_DOMAIN = 'mesh';
const TUNNEL_PORT = 15008;

/** mesh-node as it is installed: its own rules, the file registry, certificates of its own authority. */
export const meshNode: Subject = {
  name: 'mesh-node',
  roles: ['single', 'pair'],
  protocols: ['tcp', 'http'],
  missing: async () => (existsSync(PROGRAM) ? undefined : 'mesh-node is not built'),
  async start(site, backend, role, protocol) {
    const directory = join(site.directory, `mesh-node-${backend.index}`);
    mkdirSync(directory);
    const authority = join(directory, 'authority');
    await command('ca', 'init', '--directory', authority);
    const near = await startNode(site, backend, {
      host: site.client,
      name: 'near',
      role,
      protocol,
      directory,
      authority,
    });
    if (role === 'single') return running([near.process]);
    const far = await startNode(site, backend, {
      host: site.server,
      name: 'far',
      role,
      protocol,
      directory,
      authority,
    });
    const port = { kind: 'mesh', address: site.server.address, port: TUNNEL_PORT, ...near.files } as const;
    return running([near.process, far.process], { port, pids: [far.process.pid] });
  },
};

/** Runs a command of mesh-node's to its end. */
function command(...line: string[]): Promise<string> {
  return run([process.execPath, PROGRAM, '--set', `identity.trustDomain=${TRUST_DOMAIN}`, ...line]);
}

interface NodePlan {
  readonly host: Host;
  readonly name: string;
  readonly role: Role;
  readonly protocol: Protocol;
  readonly directory: string;
  readonly authority: string;
}

/** Writes everything that one node reads, and starts it as the unprivileged user with the capabilities of its unit. */
async function startNode(site: Site, backend: Backend, plan: NodePlan) {
  const home = join(plan.directory, plan.name);
  const at = (name: string): string => join(home, name);
  mkdirSync(home);
  for (const name of ['catalogue.d', 'state', 'run']) mkdirSync(at(name));
  const grants = ['--call-as', '*', '--host', '*'];
  await command('ca', 'issue', plan.name, '--directory', plan.authority, '--to', at('identity'), ...grants);
  const files = {
    authority: at('identity/ca.crt'),
    certificate: at('identity/node.crt'),
    key: at('identity/node.key'),
  };
  const config: ConfigInput = {
    node: { name: plan.name },
    capture: { allowList: at('allow-list'), ipv6: 'off' },
    tunnel: { port: TUNNEL_PORT },
    identity: { trustDomain: TRUST_DOMAIN, ...files },
    registries: [{ type: 'file', directory: at('catalogue.d') }],
    cache: { file: at('state/catalogue.cache') },
    daemon: { user: 'nobody', stateDirectory: at('state'), runtimeDirectory: at('run'), drainTimeout: '1s' },
    // HAProxy and the others write no log either.
    telemetry: { logLevel: 'warn', accessLog: 'off', metricsListen: 'off' },
  };
  writeFileSync(at('mesh-node.yaml'), stringify(config));
  writeFileSync(at('allow-list'), '');
  writeFileSync(at('catalogue.d/bench.yaml'), stringify(catalogue(site, backend, plan)));
  giveAway(home);
  const placement = {
    namespace: plan.host.namespace,
    part: 'subject',
    unprivileged: true,
    capabilities: ['net_admin', 'net_raw'],
  } as const;
  const line = [process.execPath, PROGRAM, 'run', '--config', at('mesh-node.yaml')];
  return { files, process: new ManagedProcess(`mesh-node ${plan.name}`, placement, line) };
}

/** The services; in a pair the far node serves them, otherwise no node does and they are reached directly. */
function catalogue(site: Site, backend: Backend, { role, protocol }: NodePlan) {
  const service = (name: string, to: { readonly address: string; readonly port: number }) => ({
    name,
    protocol,
    instances: [{ address: `${to.address}:${to.port}`, ...(role === 'pair' ? { node: 'far' } : {}) }],
  });
  const hosts = [
    { name: 'near', host: site.client },
    { name: 'far', host: site.server },
  ];
  const others = protocol === 'http' ? otherServices : [];
  return {
    services: [
      service('web', backend.http),
      service('bulk', backend.bulk),
      ...others.map(({ name, address }) => service(name, { address, port: 80 })),
    ],
    nodes: hosts.map(({ name, host }) => ({
      name,
      zone: 'default',
      tunnel: `${host.address}:${TUNNEL_PORT}`,
    })),
  };
}

/** Gives a directory and everything in it to the proxies' user. */
function giveAway(directory: string): void {
  chmodSync(directory, 0o755);
  chownSync(directory, PROXY_UID, PROXY_UID);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) giveAway(path);
    else chownSync(path, PROXY_UID, PROXY_UID);
  }
}
