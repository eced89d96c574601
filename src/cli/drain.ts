import type { Command } from 'commander';
import type { DrainAnswer } from '../admin/api.ts';
import { type CliContext, configOf, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';

/** `drain [SERVICE]`. */
export function addDrainCommand(program: Command, context: CliContext): void {
  program
    .command('drain')
    .argument('[service]', 'drain only this local service')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('take nothing new and let live connections end')
    .addHelpText(
      'after',
      `
Without a service the whole agent drains: new connections of this host go direct, peers are told to go elsewhere.

Examples:
  mesh-node drain
  mesh-node drain orders`,
    )
    .action(async (service: string | undefined, _options: unknown, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const answer = await client.post<DrainAnswer>('/v1/drain', service === undefined ? {} : { service });
      print(
        command,
        context,
        answer,
        () => `draining ${answer.draining}; connections that go on for now: ${answer.connections}`,
      );
    });
}
