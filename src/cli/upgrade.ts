import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import type { StatusAnswer, UpgradeAnswer } from '../admin/api.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';

/** How long the new version may take until it serves (a busy host takes ten seconds), and how often it is asked. */
const SERVES_MS = 60_000;
const ASK_MS = 100;

/** What `upgrade -o json` says. */
interface UpgradeReport {
  readonly from: string;
  readonly to: string;
  readonly pid: number;
  readonly serving: number;
  /** Of those that serve: they did so before. */
  readonly adopted: number;
  /** Workers of before that finish their connections. */
  readonly draining: readonly { readonly pid: number; readonly build: string }[];
}

/** `upgrade`. */
export function addUpgradeCommand(program: Command, context: CliContext): void {
  program
    .command('upgrade')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('have the running daemon become the version that is installed now')
    .addHelpText(
      'after',
      `
Put the new version in place first: scripts/install from its clone. It is asked whether it accepts the running configuration;
if it does not, nothing happens (exit code 3). Then the daemon replaces its own program: same process, same listening
sockets, rules untouched. New workers take new connections at once; the old ones keep what they hold for
daemon.upgradeDrainTimeout.`,
    )
    .action(async (_options: unknown, command: Command) => {
      const { daemon } = configOf(command, context);
      const client = new DaemonClient(daemon.runtimeDirectory);
      const { workers: known } = await client.get<StatusAnswer>('/v1/status');
      const answer = await client.post<UpgradeAnswer>('/v1/upgrade');
      const status = await serving(client, answer);
      const serves = status.workers.filter(({ state }) => state === 'serving');
      const report: UpgradeReport = {
        from: answer.from,
        to: status.version,
        pid: status.pid,
        serving: serves.length,
        adopted: serves.filter(({ pid }) => known.some((one) => one.pid === pid)).length,
        draining: status.leftovers.map(({ pid, build }) => ({ pid, build })),
      };
      print(command, context, report, () => text(report, status, daemon.upgradeDrainTimeout));
      if (status.version === answer.to) return;
      throw new CliError(
        exitCodes.failed,
        `${answer.to} could not start; ${status.version} goes on`,
        'journalctl -u mesh-node',
      );
    });
}

/** The status of the next image, once it serves. */
async function serving(client: DaemonClient, { to, startedAt }: UpgradeAnswer): Promise<StatusAnswer> {
  const deadline = performance.now() + SERVES_MS;
  for (;;) {
    // While one image makes room for the other nobody answers.
    const status = await client.get<StatusAnswer>('/v1/status').catch(() => undefined);
    const { workers = [], startedAt: since = startedAt } = status ?? {};
    if (status !== undefined && since !== startedAt && workers.every(({ state }) => state === 'serving'))
      return status;
    if (performance.now() > deadline) {
      const hint = 'systemctl status mesh-node; journalctl -u mesh-node';
      throw new CliError(exitCodes.failed, `${to} does not serve after ${SERVES_MS / 1000} s`, hint);
    }
    await pause(ASK_MS);
  }
}

function text(report: UpgradeReport, { workers }: StatusAnswer, drainMs: number): string {
  const { from, to, pid, serving: serve, adopted, draining } = report;
  const lines = [
    `mesh-node ${from} → ${to} (pid ${pid}, as before)`,
    `workers that serve: ${serve} of ${workers.length}, as before: ${adopted}`,
  ];
  if (draining.length > 0)
    lines.push(`workers of before that finish, within ${drainMs / 1000} s: ${draining.length}`);
  return lines.join('\n');
}
