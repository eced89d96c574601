import type { Command } from 'commander';
import { loadConfig } from '../config/load.ts';
import { type CliContext, sourcesOf } from './context.ts';

/** `run` and `zone-agent`: the daemon, in the foreground. */
export function addRunCommands(program: Command, context: CliContext): void {
  const start = async (command: Command, zoneAgent: boolean): Promise<void> => {
    const sources = sourcesOf(command, context);
    const config = loadConfig(sources);
    // Loaded here and not above: no other command has to wait for the daemon's modules.
    const { runSupervisor } = await import('../daemon/supervisor/supervisor.ts');
    const { file, flags = [] } = sources;
    const named = file === undefined ? [] : ['--config', file];
    const options = [...named, ...flags.flatMap((flag) => ['--set', flag])];
    await runSupervisor(config, {
      zoneAgent,
      reload: () => loadConfig(sources),
      commandLines: {
        run: [zoneAgent ? 'zone-agent' : 'run', ...options],
        validate: ['validate', ...options],
      },
    });
  };
  program
    .command('run')
    .description('run the node agent in the foreground; systemd starts this')
    .addHelpText(
      'after',
      `
SIGHUP reloads the configuration, SIGTERM drains (daemon.drainTimeout) and ends, SIGUSR1 opens the access log anew.

Examples:
  mesh-node run
  mesh-node run --config /tmp/try.yaml --set capture.mode=off --set telemetry.logLevel=debug`,
    )
    .action((_options: unknown, command: Command) => start(command, false));
  program
    .command('zone-agent')
    .description('run a zone-agent: a node agent that also relays between zones')
    .addHelpText(
      'after',
      `
Its certificate must allow it to relay: mesh-node ca issue NAME --relay.

Example:
  mesh-node zone-agent --set node.zone=dc1`,
    )
    .action((_options: unknown, command: Command) => start(command, true));
}
