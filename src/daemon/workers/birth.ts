import type { ListenerDescription } from '../succession/listeners.ts';

// Apart from launch.ts, so that a worker does not load the supervisor's half of this room.

/** Descriptors of a worker: 0 to 2 as ever, the supervisor, then the listeners in the order of its birth certificate. */
export const CONTROL_FD = 3;
export const FIRST_LISTENER_FD = 4;
/** Environment variable with the {@link WorkerBirth}, as JSON. */
export const WORKER_VARIABLE = 'MESH_WORKER';

/** What a worker has to know before the supervisor speaks to it. */
export interface WorkerBirth {
  readonly index: number;
  /** 64 bits, in decimal. */
  readonly epoch: string;
  readonly listeners: readonly ListenerDescription[];
  /** {@link ProgramIdentity.build} of the supervisor. */
  readonly build: string;
  readonly adoptable: boolean;
}
