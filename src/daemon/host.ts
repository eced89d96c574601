import { chmodSync, mkdirSync } from 'node:fs';
import { availableParallelism, hostname } from 'node:os';
import type { Config } from '../config/schema.ts';
import { MeshError } from '../model/errors.ts';
import { type NodeName, parseNodeName } from '../model/service.ts';

/** One worker serves this many cores; more than this many workers gain nothing (each has tunnels of its own). */
const CORES_PER_WORKER = 4;
const MAX_WORKERS = 4;

/** Workers that this host wants: one up to 4 cores, then one for each 4, at most 4. */
export function workerCount({ daemon }: Config): number {
  if (daemon.workers !== 'auto') return daemon.workers;
  return Math.min(MAX_WORKERS, Math.max(1, Math.floor(availableParallelism() / CORES_PER_WORKER)));
}

/** The name of this node: as configured, else that of the host. */
export function nodeName({ node }: Config): NodeName {
  const text = node.name ?? hostname().toLowerCase();
  const name = parseNodeName(text);
  if (name === undefined) {
    throw new MeshError(
      'configuration',
      'operator',
      `node.name: the host name ${text} is no node name; set one`,
    );
  }
  return name;
}

/** Makes the directories of the daemon where they are missing; those that are there keep their modes. */
export function makeDirectories({ daemon }: Config): void {
  for (const [path, mode] of [
    [daemon.stateDirectory, 0o700],
    [daemon.runtimeDirectory, 0o750],
  ] as const) {
    if (mkdirSync(path, { recursive: true, mode }) !== undefined) chmodSync(path, mode);
  }
}
