import type { AccessLine, MeshHost } from './mesh.ts';
import { waitFor } from './process.ts';

/*
 * What every lab test ends with: access log and metrics tell the same story, byte for byte, and nothing is left over.
 */

/** Sums by their labels. */
type Sums = Readonly<Record<string, number>>;

function sum(into: Record<string, number>, key: string, value: number): void {
  if (value !== 0) into[key] = (into[key] ?? 0) + value;
}

function logged(lines: readonly AccessLine[]): Sums {
  const sums: Record<string, number> = {};
  for (const { direction, service, path, reason, bytesSent, bytesReceived } of lines) {
    const name = service ?? 'none';
    sum(sums, `ended ${direction} ${name} ${path} ${reason}`, 1);
    sum(sums, `bytes ${direction} ${name} sent`, bytesSent ?? 0);
    sum(sums, `bytes ${direction} ${name} received`, bytesReceived ?? 0);
  }
  return sums;
}

function counted(samples: ReadonlyMap<string, number>, relayed: boolean): Sums {
  const sums: Record<string, number> = {};
  for (const [sample, value] of samples) {
    const label = (name: string) => new RegExp(`[{,]${name}="([^"]*)"`).exec(sample)?.[1];
    const about = `${label('direction')} ${label('service')}`;
    if (sample.startsWith('mesh_node_connections_total{'))
      sum(sums, `ended ${about} ${label('path')} ${label('reason')}`, value);
    else if (sample.startsWith('mesh_node_connection_bytes_total{'))
      sum(sums, `bytes ${about} ${label('flow')}`, value);
    else if (
      sample.startsWith('mesh_node_connections_active{') ||
      sample.startsWith('mesh_node_tunnel_streams{')
    ) {
      const idleRelay = sample.includes('tunnel_streams') || label('direction') === 'relay';
      if (!relayed || !idleRelay) sum(sums, sample, value);
    }
  }
  return sums;
}

/**
 * Waits until an agent has no connection and no stream left, and its metrics are the sum of its access log. `relayed`:
 * sessions through zone-agents stay when they are idle, and each is a stream, and a connection of those that carry it.
 */
export async function balanced(mesh: MeshHost, relayed = false): Promise<void> {
  await waitFor(`the books of ${mesh.host.name} agree`, async () => {
    const [lines, samples] = await Promise.all([mesh.accessLog(), mesh.metrics()]);
    const [log, metrics] = [logged(lines), counted(samples, relayed)];
    const differing = [...new Set([...Object.keys(log), ...Object.keys(metrics)])].filter(
      (key) => log[key] !== metrics[key],
    );
    if (differing.length === 0) return true;
    throw new Error(differing.map((key) => `${key}: logged ${log[key]}, counted ${metrics[key]}`).join('; '));
  });
}

/** Ends agents as systemd would, after their books agree: each ends well and leaves no socket, rule or set. */
export async function settled(
  agents: readonly MeshHost[],
  ports: readonly number[],
  killed: readonly string[],
  relayed = false,
): Promise<void> {
  await Promise.all(
    agents.map(async (mesh) => {
      if (!killed.includes(mesh.host.name)) await balanced(mesh, relayed);
      const sockets = ['15001', ...ports].map((port) => `sport = :${port} or dport = :${port}`).join(' or ');
      await waitFor(`no connection is left on ${mesh.host.name}`, async () => {
        const left = await mesh.host.must([
          'ss',
          '-Htn',
          'state',
          'connected',
          'exclude',
          'time-wait',
          sockets,
        ]);
        if (left.trim() === '') return true;
        throw new Error(left);
      });
      const code = await mesh.stop();
      if (code !== 0)
        throw new Error(`mesh-node of ${mesh.host.name} ended with ${code}\n${mesh.running.output}`);
      await leavesNothing(mesh);
    }),
  );
}

async function leavesNothing(mesh: MeshHost): Promise<void> {
  const { host } = mesh;
  const commands = [['iptables-save'], ['ip6tables-save'], ['ipset', 'list', '-n']];
  const standing = (await Promise.all(commands.map((command) => host.must(command)))).join('');
  // What strict services and virtual addresses need stands without the agent, until somebody takes it out.
  if (/-A MESH_.* -j REDIRECT/.test(standing)) throw new Error(`${host.name} still redirects:\n${standing}`);
  const { code, stderr } = await mesh.cli(['rules', 'remove']);
  if (code !== 0) throw new Error(`rules remove on ${host.name} ended with ${code}: ${stderr}`);
  const kept = await Promise.all(commands.map((command) => host.must(command)));
  const ours = kept
    .join('')
    .split('\n')
    .filter((line) => /\bMESH_/.test(line));
  if (ours.length > 0) throw new Error(`left on ${host.name}:\n${ours.join('\n')}`);
  const pids = await host.must(['ip', 'netns', 'pids', host.namespace]);
  for (const pid of pids.split('\n').filter((one) => one !== '')) {
    const command = await host.must(['sh', '-c', `tr '\\0' ' ' < /proc/${pid}/cmdline || true`]);
    if (/\bdist\/(?:main|daemon)/.test(command)) throw new Error(`still runs on ${host.name}: ${command}`);
  }
}
