import { Socket } from 'node:net';
import { socketInode } from '../../io/bound-socket.ts';
import { raiseDescriptorLimit } from '../../io/descriptors.ts';
import { createLog } from '../../telemetry/log.ts';
import { OwnProgram } from '../succession/own-program.ts';
import { CONTROL_FD, FIRST_LISTENER_FD, WORKER_VARIABLE, type WorkerBirth } from '../workers/birth.ts';
import { NodeDataPlane } from './data-plane.ts';
import { Worker } from './worker.ts';

/*
 * Entry of a worker process. It ends when its supervisor says so or is gone, never by a signal that was meant for the
 * supervisor (a terminal sends Ctrl-C to the whole group). SIGTERM ends one that has no supervisor: a host that shuts
 * down does not wait for it.
 */
for (const signal of ['SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) process.on(signal, () => {});

const birth = JSON.parse(process.env[WORKER_VARIABLE] ?? '{}') as WorkerBirth;
const log = createLog({ level: 'info', process: `worker-${birth.index}` });
const listeners = birth.listeners.map((listener, at) => ({ ...listener, fd: FIRST_LISTENER_FD + at }));

// A fault of the program must not be lived with: the supervisor starts another, and the others notice nothing.
process.on('uncaughtException', (error) => {
  log.fatal({ error }, 'worker: uncaught exception');
  log.flush(() => process.exit(70));
});

const { build } = new OwnProgram().identity;
if (build !== birth.build) {
  // The two would not understand each other.
  log.fatal(
    { build, supervisor: birth.build },
    'worker: the program was replaced twice; run: mesh-node upgrade',
  );
  log.flush(() => process.exit(78));
}

raiseDescriptorLimit();
const worker = new Worker(
  new Socket({ fd: CONTROL_FD, readable: true, writable: true }),
  {
    ...{ build, index: birth.index, epoch: birth.epoch, adoptable: birth.adoptable },
    listeners: listeners.map(({ fd }) => socketInode(fd)),
  },
  (settings) => {
    log.level = settings.config.telemetry.logLevel;
    return new NodeDataPlane(settings, { index: birth.index, listeners, epoch: BigInt(birth.epoch), log });
  },
  (code) => log.flush(() => process.exit(code)),
);
process.on('SIGTERM', () => worker.end());
