import type { Command } from 'commander';
import type { ReloadAnswer } from '../admin/api.ts';
import { type CliContext, configOf, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';

/** `reload`. */
export function addReloadCommand(program: Command, context: CliContext): void {
  program
    .command('reload')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('have the running daemon read its configuration, allow-list and certificates again')
    .addHelpText(
      'after',
      `
No connection is lost. A configuration with a mistake is refused with its place (exit code 3), and the running one stays.`,
    )
    .action(async (_options: unknown, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const answer = await client.post<ReloadAnswer>('/v1/reload');
      print(command, context, answer, () => {
        const changed =
          answer.changed.length === 0 ? 'nothing changed' : `changed: ${answer.changed.join(', ')}`;
        const later =
          answer.needRestart.length === 0 ? '' : `\nafter a restart: ${answer.needRestart.join(', ')}`;
        return `reloaded, ${changed}${later}`;
      });
    });
}
