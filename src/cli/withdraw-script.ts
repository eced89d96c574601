import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import { PROGRAM_DIRECTORY } from '../io/installation.ts';
import { CliError, exitCodes } from './context.ts';

/** Bound on one run. */
const SCRIPT_MS = 30_000;

/** Runs systemd/withdraw-rules, which needs no daemon; rejects with a CliError that says what it said. */
export function runWithdrawScript({ daemon, names }: Config, verb: 'now' | 'serving'): Promise<void> {
  // In an installed program beside dist/, in a clone below systemd/.
  const places = ['withdraw-rules', 'systemd/withdraw-rules'];
  const script = places.map((place) => join(PROGRAM_DIRECTORY, place)).find(existsSync);
  if (script === undefined) throw new CliError(exitCodes.system, 'the script withdraw-rules is missing');
  const env = {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    MESH_NODE_DAEMON_STATE_DIRECTORY: daemon.stateDirectory,
    MESH_NODE_DAEMON_RUNTIME_DIRECTORY: daemon.runtimeDirectory,
    MESH_NODE_NAMES_DOMAIN: names.domain,
    MESH_NODE_NAMES_IPV4: names.ipv4,
    MESH_NODE_NAMES_IPV6: names.ipv6,
  };
  return new Promise((resolve, reject) => {
    execFile(script, [verb], { env, timeout: SCRIPT_MS, killSignal: 'SIGKILL' }, (error, _stdout, stderr) => {
      if (error === null) resolve();
      else
        reject(
          new CliError(exitCodes.system, `${script}: ${stderr.trim() || error.message}`, 'run it as root'),
        );
    });
  });
}
