import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { StatusAnswer } from '../../admin/api.ts';
import { plainRunner } from '../../capture/command.ts';
import type { Config } from '../../config/schema.ts';
import { reasonOf } from '../../model/errors.ts';
import type { CliContext } from '../context.ts';
import { DaemonClient } from '../daemon-client.ts';
import { type Check, type CheckResult, type CheckSubject, fail } from './check.ts';

/** Bound on one check. Above the bounds on what it waits for (a program, the daemon), so that theirs tell more. */
const CHECK_MS = 20_000;
/** Bounds on one program, one file, and the daemon's word. */
const PROGRAM_MS = 10_000;
const FILE_MS = 2_000;
const DAEMON_MS = 5_000;
/** Most of a file that is read: the longest is the table of listening sockets. */
const MAX_FILE = 1024 * 1024;

/** A check's result with its name. */
export interface NamedResult extends CheckResult {
  readonly name: string;
}

/** What checks look at on this host. */
export function subjectOf(config: Config, context: CliContext): CheckSubject {
  let daemon: Promise<StatusAnswer | undefined> | undefined;
  const client = new DaemonClient(config.daemon.runtimeDirectory, DAEMON_MS);
  const get = <T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T | undefined> =>
    client.get<T>(path, parameters).catch(() => undefined);
  return {
    config,
    context,
    root: process.getuid?.() === 0,
    daemon: () => {
      daemon ??= get<StatusAnswer>('/v1/status');
      return daemon;
    },
    get,
    run: (program, args, input) =>
      plainRunner.run({ program, args, timeoutMs: PROGRAM_MS, ...(input === undefined ? {} : { input }) }),
    read: (path) => within(FILE_MS, readSmall(path)).catch(() => undefined),
  };
}

/**
 * Runs them all at the same time; the results are in the order of the list. One that hangs, or falls, is a failure of its
 * own and of no other.
 */
export function runChecks(
  checks: readonly Check[],
  subject: CheckSubject,
  boundMs: number = CHECK_MS,
): Promise<readonly NamedResult[]> {
  return Promise.all(
    checks.map(async ({ name, run }) => {
      const result = await within(boundMs, run(subject)).catch((error: unknown) =>
        fail(reasonOf(error), 'mesh-node check --help'),
      );
      return { name, ...result };
    }),
  );
}

/** Without waiting for a writer, where a pipe lies in place of a file: a process with a thread that waits cannot end. */
async function readSmall(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    // Files in /proc say that they have no size, and come page by page.
    const buffer = Buffer.alloc(MAX_FILE);
    let size = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, size, MAX_FILE - size, null);
      size += bytesRead;
      if (bytesRead === 0 || size === MAX_FILE) return buffer.toString('utf8', 0, size);
    }
  } finally {
    await file.close();
  }
}

/** The promise, or an error once so many milliseconds are over. */
function within<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`no answer within ${milliseconds / 1000} s`)),
      milliseconds,
    );
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
