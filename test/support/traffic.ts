import { join } from 'node:path';
import type { Running } from './process.ts';
import { type Host, REPOSITORY } from './topology.ts';

const PROGRAM = join(REPOSITORY, 'build/test/support/traffic.entry.js');

/** What a transfer showed. */
export interface Transfer {
  readonly bytes: number;
  readonly ms: number;
  /** The SHA-256 of both ends is the same. */
  readonly match: boolean;
}

/** Starts the traffic server of traffic.entry.ts on a host. */
export async function trafficServer(host: Host, port: number): Promise<Running> {
  const running = host.spawn('traffic', [process.execPath, PROGRAM, 'serve', `${port}`]);
  await host.listening(port, running);
  return running;
}

/** Runs a client of traffic.entry.ts to its end. */
export async function traffic<T>(
  host: Host,
  verb: 'up' | 'down' | 'ping' | 'crowd',
  to: string,
  port: number,
  ...amounts: readonly number[]
): Promise<T> {
  const command = [process.execPath, PROGRAM, verb, to, `${port}`, ...amounts.map(String)];
  return JSON.parse(await host.must(command, { timeoutMs: 90_000 })) as T;
}
