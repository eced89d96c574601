import type { Command } from 'commander';
import { ConfigError } from '../config/problem.ts';
import type { Config } from '../config/schema.ts';
import { agentChecks } from './checks/agent.ts';
import { certificates } from './checks/certificates.ts';
import { type Check, type CheckResult, fail, ok } from './checks/check.ts';
import { hostChecks } from './checks/host.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';

interface NamedResult extends CheckResult {
  readonly name: string;
}

interface CheckOptions {
  readonly output: string;
  readonly pre?: true;
}

/** `check`. */
export function addCheckCommand(program: Command, context: CliContext): void {
  program
    .command('check')
    .option('--pre', 'only what has to be right before the daemon runs')
    .option('-o, --output <format>', 'table, json or short', 'table')
    .description('check configuration, host, certificates, rules and daemon; each failure with a hint')
    .addHelpText(
      'after',
      `
Exit code 1 when a check failed. "warn" and "skip" do not fail; run it as root to have nothing skipped.

Examples:
  mesh-node check --pre
  mesh-node check -o short || echo "something is wrong here"`,
    )
    .action(async (options: CheckOptions, command: Command) => {
      const results = await runChecks(command, context, options.pre ?? false);
      const failed = results.filter(({ state }) => state === 'fail').length;
      if (options.output === 'short') {
        for (const { name, state, detail } of results) {
          if (state === 'fail') context.stdout(`${name}: ${detail}\n`);
        }
      } else print(command, context, { ok: failed === 0, checks: results }, () => results.map(line).join(''));
      if (failed > 0) throw new CliError(exitCodes.failed, `${failed} of ${results.length} checks failed`);
    });
}

async function runChecks(
  command: Command,
  context: CliContext,
  before: boolean,
): Promise<readonly NamedResult[]> {
  let config: Config;
  try {
    config = configOf(command, context);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    // Without a configuration nothing else can be looked at.
    const hint = 'mesh-node validate';
    return [{ name: 'configuration', ...fail(error.message.split('\n', 1)[0]!, hint) }];
  }
  const checks: readonly Check[] = [...hostChecks, certificates, ...(before ? [] : agentChecks)];
  const results: NamedResult[] = [{ name: 'configuration', ...ok('valid') }];
  // One after the other: they listen on ports and run programs, and their order is that of the list.
  for (const check of checks) {
    const result = await check
      .run(config, context)
      .catch((error: unknown) =>
        fail(error instanceof Error ? error.message : String(error), 'mesh-node --help'),
      );
    results.push({ name: check.name, ...result });
  }
  return results;
}

const SIGN = { ok: '✓', warn: '!', fail: '✗', skip: '-' } as const;
const NAME_WIDTH = 15;

function line({ name, state, detail, hint }: NamedResult): string {
  const told = `${SIGN[state]} ${name.padEnd(NAME_WIDTH)}${detail}\n`;
  return hint === undefined ? told : `${told}${' '.repeat(NAME_WIDTH + 2)}→ ${hint}\n`;
}
