import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { ConfigError } from '../config/problem.ts';
import { MeshError } from '../model/errors.ts';
import { commandsFor } from './commands.ts';
import { type CliContext, CliError, type ExitCode, exitCodes } from './context.ts';
import { printable } from './printable.ts';

const FOOTER = `
Settings come from the file, then MESH_NODE_<SECTION>_<KEY> in the environment, then --set; later ones win.

Exit codes:
   0  done; the answer is yes
   1  a check failed; the answer is no; the daemon refused
   2  the command line is wrong
   3  the configuration is wrong
   4  the daemon cannot be reached
   5  the kernel, a file or another program refused (root needed?)
  70  a fault of mesh-node itself

First steps:
  mesh-node validate              is the configuration right?
  mesh-node rules print           what would be done to iptables?
  mesh-node check                 is this host ready for it?
  systemctl enable --now mesh-node
  mesh-node status                what does it do?`;

/** Runs one command line (without `node` and the script); the exit code. Never throws. */
export async function runCli(
  argv: readonly string[],
  version: string,
  context: CliContext,
): Promise<ExitCode> {
  const program = new Command('mesh-node')
    .description('service mesh for ordinary Linux hosts')
    .version(version, '-V, --version', 'print the version')
    .addOption(
      new Option('-c, --config <file>', 'configuration file (default: /etc/mesh-node/mesh-node.yaml)'),
    )
    .addOption(
      new Option('-s, --set <key=value>', 'one setting, such as capture.mode=all; repeatable').argParser(
        (value: string, before: readonly string[] | undefined) => [...(before ?? []), value],
      ),
    )
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => context.stdout(text),
      writeErr: (text) => context.stderr(text),
      getOutHelpWidth: () => context.columns ?? 100,
      getErrHelpWidth: () => context.columns ?? 100,
    })
    .showHelpAfterError('(--help tells more)')
    .exitOverride()
    .addHelpText('after', FOOTER);
  try {
    for (const add of await commandsFor(argv)) add(program, context);
    checkOutputFormat(program);
    await program.parseAsync(argv, { from: 'user' });
    return exitCodes.ok;
  } catch (error) {
    return explain(error, context);
  }
}

/** `-o` takes a closed set of words in every command that has it. */
function checkOutputFormat(command: Command): void {
  for (const option of command.options) {
    if (option.attributeName() !== 'output') continue;
    const known = option.description.split(/, | or /);
    option.argParser((value: string) => {
      if (!known.includes(value)) throw new InvalidArgumentError(`Expected ${option.description}.`);
      return value;
    });
  }
  for (const sub of command.commands) checkOutputFormat(sub);
}

function explain(error: unknown, context: CliContext): ExitCode {
  const say = (text: string): void => context.stderr(printable(`mesh-node: ${text}\n`));
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (error instanceof CliError) {
    say(error.hint === undefined ? error.message : `${error.message} (${error.hint})`);
    return error.exitCode;
  }
  if (error instanceof ConfigError) {
    context.stderr(`${error.message}\n`);
    return exitCodes.configuration;
  }
  if (error instanceof MeshError) {
    say(error.message);
    if (error.code === 'configuration') return exitCodes.configuration;
    return error.code === 'unreachable' ? exitCodes.unreachable : exitCodes.system;
  }
  const { code, message, stack } = error as NodeJS.ErrnoException;
  if (code?.startsWith('E') === true && !code.startsWith('ERR_')) {
    say(message);
    return exitCodes.system;
  }
  // A fault of ours: whoever reports it needs the stack.
  say(`internal error: ${stack ?? String(error)}`);
  return exitCodes.internal;
}
