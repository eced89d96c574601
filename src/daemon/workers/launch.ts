import { spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { closeDescriptor } from '../../io/descriptors.ts';
import { entryFile } from '../../io/installation.ts';
import { createSocketPair } from '../../io/socketpair.ts';
import type { Listener } from '../succession/listeners.ts';
import type { OwnProgram } from '../succession/own-program.ts';
import { WORKER_VARIABLE, type WorkerBirth } from './birth.ts';
import { ChildLife } from './worker-life.ts';
import { type WorkerEvents, WorkerProcess } from './worker-process.ts';

/**
 * Objects are born young, always. V8 takes those of a connection for long-lived ones when it sees them survive while
 * there is little else, makes them in the old space from then on, and what is dead there keeps everything it refers to
 * alive until the next full collection: half of the young space survived every minor one (CPU for each new connection
 * 1.49 × HAProxy's, without pretenuring 1.13 × in the same, loaded minute). A smaller young space costs more.
 */
const V8_FLAGS = ['--no-allocation-site-pretenuring'];

/** What all workers of an agent are started with. */
export interface LaunchOptions {
  readonly listeners: readonly Listener[];
  readonly epoch: bigint;
  readonly hangTimeoutMs: number;
  readonly program: OwnProgram;
  /** The service manager keeps the listeners as well: see {@link WorkerOrigin}. */
  readonly adoptable: boolean;
}

/**
 * Starts a worker. It inherits the listeners and one end of a socketpair, and no capability: the supervisor's ambient
 * set is empty whenever a worker is started.
 */
export function launchWorker(index: number, options: LaunchOptions, events: WorkerEvents): WorkerProcess {
  const { listeners, epoch, program, adoptable } = options;
  const [own, theirs] = createSocketPair();
  const birth: WorkerBirth = {
    index,
    epoch: epoch.toString(),
    listeners: listeners.map(({ kind, ip, port }) => ({ kind, ip, port })),
    build: program.identity.build,
    adoptable,
  };
  const main = join(program.directory, entryFile('daemon/worker/worker-main'));
  const child = spawn(process.execPath, [...V8_FLAGS, main], {
    stdio: ['ignore', 'inherit', 'inherit', theirs, ...listeners.map(({ fd }) => fd)],
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      NODE_ENV: 'production',
      [WORKER_VARIABLE]: JSON.stringify(birth),
    },
  });
  closeDescriptor(theirs);
  const socket = new Socket({ fd: own, readable: true, writable: true });
  return new WorkerProcess(index, new ChildLife(child), socket, options.hangTimeoutMs, events);
}
