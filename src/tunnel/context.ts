import type { Config } from '../config/schema.ts';
import type { TurnScheduler } from './outbox.ts';

export type TunnelSettings = Config['tunnel'];

/** What of the log a tunnel needs; pino's logger is one. */
interface TunnelLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What all tunnels of a worker have in common. */
export interface TunnelContext {
  readonly settings: TunnelSettings;
  readonly scheduler: TurnScheduler;
  readonly log: TunnelLog;
  /** Drawn once for each start of the agent, the same in all of its workers. */
  readonly epoch: bigint;
}
