import { Socket } from 'node:net';
import { raiseDescriptorLimit } from '../io/descriptors.ts';
import { createLog } from '../telemetry/log.ts';
import { NodeDataPlane } from './data-plane.ts';
import { CONTROL_FD, FIRST_LISTENER_FD, WORKER_VARIABLE, type WorkerBirth } from './launch.ts';
import { Worker } from './worker.ts';

/*
 * Entry of a worker process. It ends when its supervisor says so or is gone, never by a signal that was meant for the
 * supervisor (a terminal sends Ctrl-C to the whole group).
 */
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const)
  process.on(signal, () => {});

const birth = JSON.parse(process.env[WORKER_VARIABLE] ?? '{}') as WorkerBirth;
const log = createLog({ level: 'info', process: `worker-${birth.index}` });
const listeners = birth.listeners.map((listener, at) => ({ ...listener, fd: FIRST_LISTENER_FD + at }));

// A fault of the program must not be lived with: the supervisor starts another, and the others notice nothing.
process.on('uncaughtException', (error) => {
  log.fatal({ error }, 'worker: uncaught exception');
  log.flush(() => process.exit(70));
});

raiseDescriptorLimit();
new Worker(
  new Socket({ fd: CONTROL_FD, readable: true, writable: true }),
  (settings) => {
    log.level = settings.config.telemetry.logLevel;
    return new NodeDataPlane(settings, { index: birth.index, listeners, epoch: BigInt(birth.epoch), log });
  },
  (code) => log.flush(() => process.exit(code)),
);
