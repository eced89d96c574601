import { type DestinationStream, destination, type Logger, pino } from 'pino';

/** Most bytes of log lines that wait for a slow reader of stdout (a stopped journal); lines beyond it are dropped. */
const MOST_WAITING_BYTES = 1024 * 1024;

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error';

/**
 * The program's log: `log.info({ peer }, 'tunnel open')`. Structured, one JSON object for each line, with `component`
 * from `log.child({ component })`. Rooms below ask for the methods that they use by an interface of their own.
 */
export type Log = Logger;

/** What a log is made with. */
export interface LogOptions {
  readonly level: LogLevel;
  /** `supervisor`, `worker-0`, …: which process speaks. */
  readonly process: string;
  /** Where lines go; by default stdout, which is the journal under systemd. */
  readonly to?: DestinationStream;
}

/** A log that never blocks the loop: lines wait in memory, up to a bound, and are lost rather than waited for. */
export function createLog(options: LogOptions): Log {
  return pino(
    {
      level: options.level,
      base: { process: options.process },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorFields, error: errorFields },
    },
    options.to ?? destination({ dest: 1, sync: false, maxLength: MOST_WAITING_BYTES }),
  );
}

/** What a log line tells of an error. The stack only where it is a fault of the program, not of the world. */
function errorFields(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code, source } = error as { readonly code?: unknown; readonly source?: unknown };
  const known = typeof code === 'string';
  return {
    message: error.message,
    ...(known ? { code } : { stack: error.stack }),
    ...(typeof source === 'string' ? { source } : {}),
    ...(error.cause === undefined ? {} : { cause: errorFields(error.cause) }),
  };
}

/** Logs a change of state the way all state machines do it: `tunnel: connecting → open`. */
export function logChange(
  log: Pick<Log, 'info'>,
  what: string,
  from: string,
  to: string,
  fields: Readonly<Record<string, unknown>> = {},
): void {
  if (from !== to) log.info({ ...fields, from, to }, `${what}: ${from} → ${to}`);
}
