import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './process.ts';

const PREFIX = 'mnbench';

/** One of the two hosts: a network namespace with one address. */
export interface Host {
  readonly namespace: string;
  readonly address: string;
}

/** Two hosts on one wire, and a directory for what their programs need. */
export interface Topology {
  /** Runs the load generator and, in front of it, the measured proxy. */
  readonly client: Host;
  /** Runs the servers and, in pairs, the second proxy. */
  readonly server: Host;
  /** Configurations, keys and scripts; removed with the topology. */
  readonly directory: string;
  /** Removes everything. Processes in it must have ended. */
  remove(): void;
}

/*
 * Each kernel setting with its reason: a new-connection test leaves hundreds of thousands of finished connections
 * behind, and neither conntrack (262,144 entries by default) nor the local ports may run out because of them.
 */
const SYSCTLS: readonly (readonly [string, string])[] = [
  ['net.ipv4.ip_local_port_range', '16384 65000'], // leaves 15001 and its neighbours to the capture listeners
  ['net.ipv4.tcp_tw_reuse', '1'],
  ['net.netfilter.nf_conntrack_tcp_timeout_time_wait', '1'],
  ['net.netfilter.nf_conntrack_tcp_timeout_close', '1'],
  ['net.netfilter.nf_conntrack_tcp_timeout_last_ack', '1'],
];

let counter = 0;

/** Makes two namespaces joined by a veth pair. Names hold the process id, so that several benches can run at once. */
export async function createTopology(): Promise<Topology> {
  removeStale();
  const id = `${PREFIX}-${process.pid}-${counter++}`;
  const client: Host = { namespace: `${id}-a`, address: '10.213.0.1' };
  const server: Host = { namespace: `${id}-b`, address: '10.213.0.2' };
  const directory = mkdtempSync(join(tmpdir(), `${PREFIX}-`));
  const remove = (): void => {
    process.off('exit', remove);
    for (const host of [client, server]) deleteNamespace(host.namespace);
    rmSync(directory, { recursive: true, force: true });
  };
  process.on('exit', remove);
  try {
    await run(['chmod', '755', directory]); // proxies run as another user
    for (const host of [client, server]) await run(['ip', 'netns', 'add', host.namespace]);
    await run([
      'ip',
      'link',
      'add',
      'eth0',
      'netns',
      client.namespace,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'netns',
      server.namespace,
    ]);
    for (const host of [client, server]) {
      const at = ['ip', '-n', host.namespace];
      await run([...at, 'link', 'set', 'lo', 'up']);
      await run([...at, 'address', 'add', `${host.address}/24`, 'dev', 'eth0']);
      await run([...at, 'link', 'set', 'eth0', 'up']);
      // A nat table switches connection tracking on: both hosts have it, whatever a subject needs by itself.
      await run(['ip', 'netns', 'exec', host.namespace, 'iptables', '-t', 'nat', '-N', 'BENCH']);
      for (const [name, value] of SYSCTLS) {
        await run(['ip', 'netns', 'exec', host.namespace, 'sysctl', '-qw', `${name}=${value}`]);
      }
    }
  } catch (error) {
    remove();
    throw error;
  }
  return { client, server, directory, remove };
}

/** Redirects what the host's programs send to `port` of `address`, as interception does; the proxy's own user is let through. */
export async function redirect(
  host: Host,
  to: { readonly address: string; readonly port: number },
  capturePort: number,
  exceptUid: number,
): Promise<void> {
  const match = ['-p', 'tcp', '--syn', '-d', to.address, '--dport', String(to.port)];
  const owner = ['-m', 'owner', '!', '--uid-owner', String(exceptUid)];
  await run(
    [
      'ip',
      'netns',
      'exec',
      host.namespace,
      'iptables',
      '-t',
      'nat',
      '-A',
      'OUTPUT',
      ...match,
      ...owner,
    ].concat(['-j', 'REDIRECT', '--to-ports', String(capturePort)]),
  );
}

function deleteNamespace(name: string): void {
  try {
    execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
  } catch {
    // It was never made, or is gone already: nothing is left to remove.
  }
}

/** Removes namespaces of earlier benches whose process is gone (killed in a way it could not clean up after). */
function removeStale(): void {
  const names = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }).split('\n');
  for (const line of names) {
    const match = new RegExp(`^(${PREFIX}-(\\d+)-\\d+-[ab])\\b`).exec(line);
    if (match !== null && !existsSync(`/proc/${match[2]}`)) deleteNamespace(match[1]!);
  }
}
