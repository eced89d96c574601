import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ManagedProcess } from './process.ts';
import type { Site } from './site.ts';
import type { PeerPort } from './subjects/subject.ts';

/** How long the peers may take to connect, all together. */
const CONNECT_TIMEOUT_MS = 120_000;

/** Connects `count` simulated peers, which stay idle; returns what ends them. */
export async function holdPeers(site: Site, port: PeerPort, count: number): Promise<() => Promise<void>> {
  const program = fileURLToPath(new URL('./clients/peers.js', import.meta.url));
  const argument = JSON.stringify({ ...port, count });
  const simulator = new ManagedProcess('peers', { namespace: site.client.namespace, part: 'load' }, [
    process.execPath,
    program,
    argument,
  ]);
  const timer = setTimeout(() => simulator.child.kill('SIGKILL'), CONNECT_TIMEOUT_MS);
  const lines = createInterface({ input: simulator.child.stdout! });
  const answer = await Promise.race([
    once(lines, 'line').then(([line]) => String(line)),
    once(simulator.child, 'exit').then(() => `ended: ${simulator.output}`),
  ]);
  clearTimeout(timer);
  if (answer !== 'ready') {
    await simulator.stop();
    throw new Error(`peers could not be connected: ${answer}`);
  }
  return () => simulator.stop();
}
