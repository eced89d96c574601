import { readFileSync } from 'node:fs';
import { processTree } from './cpu.ts';

/** Memory of processes and all their descendants, in bytes. Socket buffers are the kernel's and not in it. */
export function readMemory(roots: readonly number[]): { rssBytes: number; pssBytes: number } {
  let rssBytes = 0;
  let pssBytes = 0;
  for (const pid of processTree(roots)) {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    rssBytes += 1024 * Number(/^Rss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0);
    pssBytes += 1024 * Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0);
  }
  return { rssBytes, pssBytes };
}
