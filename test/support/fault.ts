import { setTimeout as pause } from 'node:timers/promises';

/** What may happen to the far side of a link. */
export const faults = ['killed', 'stopped', 'blackholed', 'slow'] as const;
export type Fault = (typeof faults)[number];

/** A slow process runs for one part of its time and is stopped for the other. */
const SLOW_STOPPED_MS = 90;
const SLOW_RUNNING_MS = 10;

function signal(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name);
    } catch {
      // gone: somebody ended it because it did not answer
    }
  }
}

/** Stops processes; the answer lets them go on. */
export function stopProcesses(pids: readonly number[]): () => Promise<void> {
  signal(pids, 'SIGSTOP');
  return async () => signal(pids, 'SIGCONT');
}

/** Gives processes a tenth of their time, in slices, as a host does that has far too much to do. */
export function slowProcesses(pids: readonly number[]): () => Promise<void> {
  let over = false;
  const turn = (async () => {
    while (!over) {
      signal(pids, 'SIGSTOP');
      await pause(SLOW_STOPPED_MS);
      signal(pids, 'SIGCONT');
      await pause(SLOW_RUNNING_MS);
    }
  })();
  return async () => {
    over = true;
    await turn;
    signal(pids, 'SIGCONT');
  };
}
