import type { Command } from 'commander';
import { ConfigError } from '../config/problem.ts';
import type { Config } from '../config/schema.ts';
import { agentChecks } from './checks/agent.ts';
import { certificates } from './checks/certificates.ts';
import { type Check, fail, ok } from './checks/check.ts';
import { clock } from './checks/clock.ts';
import { hostChecks } from './checks/host.ts';
import { leftovers } from './checks/leftovers.ts';
import { interceptionChecks } from './checks/netfilter.ts';
import { networkChecks } from './checks/network.ts';
import { portChecks } from './checks/ports.ts';
import { type NamedResult, runChecks, subjectOf } from './checks/run-checks.ts';
import { selfTest, selfTestBefore } from './checks/self-test.ts';
import { serviceManagerChecks } from './checks/service-manager.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';

interface CheckOptions {
  readonly output: string;
  readonly pre?: true;
  readonly selfTest?: true;
}

/** `check`. */
export function addCheckCommand(program: Command, context: CliContext): void {
  program
    .command('check')
    .option('--pre', 'only what has to be right before the daemon runs')
    .option('--self-test', 'prove that connections are redirected, on both families (root)')
    .option('-o, --output <format>', 'table, json or short', 'table')
    .description('check configuration, host, certificates, rules and daemon; each failure with a hint')
    .addHelpText(
      'after',
      `
Exit code 1 when a check failed. "warn" and "skip" do not fail; run it as root to have nothing skipped.

--self-test opens a random port at an address of the agent's own and asks a worker a question through the rules of this
host; with --pre it does the same with rules of its own, in a network namespace of its own.

Examples:
  mesh-node check --pre
  mesh-node check --self-test
  mesh-node check -o short || echo "something is wrong here"`,
    )
    .action(async (options: CheckOptions, command: Command) => {
      const results = await allResults(command, context, options);
      const failed = results.filter(({ state }) => state === 'fail').length;
      if (options.output === 'short') {
        for (const { name, state, detail } of results) {
          if (state === 'fail') context.stdout(`${name}: ${detail}\n`);
        }
      } else print(command, context, { ok: failed === 0, checks: results }, () => results.map(line).join(''));
      if (failed > 0) throw new CliError(exitCodes.failed, `${failed} of ${results.length} checks failed`);
    });
}

async function allResults(
  command: Command,
  context: CliContext,
  options: CheckOptions,
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
  const before = options.pre === true;
  const checks: readonly Check[] = [
    ...hostChecks,
    ...interceptionChecks,
    ...portChecks,
    ...networkChecks,
    certificates,
    clock,
    ...serviceManagerChecks,
    leftovers,
    ...(before ? [] : agentChecks),
    ...(options.selfTest === true ? [before ? selfTestBefore : selfTest] : []),
  ];
  const configuration = { name: 'configuration', ...ok('valid') };
  return [configuration, ...(await runChecks(checks, subjectOf(config, context)))];
}

const SIGN = { ok: '✓', warn: '!', fail: '✗', skip: '-' } as const;
const NAME_WIDTH = 18;

function line({ name, state, detail, hint }: NamedResult): string {
  const told = `${SIGN[state]} ${name.padEnd(NAME_WIDTH)}${detail}\n`;
  return hint === undefined ? told : `${told}${' '.repeat(NAME_WIDTH + 2)}→ ${hint}\n`;
}
