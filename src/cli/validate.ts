import { existsSync, readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { describeProblem, parseAllowList, parseProtected } from '../capture/allow-list.ts';
import { configFileOf, loadConfig } from '../config/load.ts';
import { ConfigError, formatProblem } from '../config/problem.ts';
import type { Config } from '../config/schema.ts';
import { type CliContext, CliError, exitCodes, print, sourcesOf } from './context.ts';

/** `validate [FILE]`. */
export function addValidateCommand(program: Command, context: CliContext): void {
  program
    .command('validate')
    .argument('[file]', 'configuration file (default: that of --config)')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('check a configuration and the allow-list it names, without a running daemon')
    .addHelpText(
      'after',
      `
All mistakes are listed, each with file, line, column, what was found and what was expected. Exit code 3 if any.

Examples:
  mesh-node validate
  mesh-node validate ./new.yaml --set capture.mode=all
  mesh-node validate -o json | jq '.problems[].path'`,
    )
    .action((file: string | undefined, _options: unknown, command: Command) => {
      const sources = sourcesOf(command, context, file);
      const checked = configFileOf(sources);
      let config: Config;
      try {
        config = loadConfig(sources);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        print(command, context, { valid: false, problems: error.problems }, () =>
          error.problems.map((problem) => `${formatProblem(problem)}\n`).join(''),
        );
        throw new CliError(exitCodes.configuration, countText(error.problems.length));
      }
      const problems = allowListProblems(config);
      print(command, context, { valid: problems.length === 0, problems }, () =>
        problems.length === 0 ? `${checked}: valid` : problems.join('\n'),
      );
      if (problems.length > 0) throw new CliError(exitCodes.configuration, countText(problems.length));
    });
}

function countText(problems: number): string {
  return problems === 1 ? '1 problem' : `${problems} problems`;
}

function allowListProblems(config: Config): readonly string[] {
  const { allowList, protect } = config.capture;
  const problems: string[] = [];
  try {
    parseProtected(protect);
  } catch (error) {
    problems.push((error as Error).message);
  }
  if (existsSync(allowList)) {
    const parsed = parseAllowList(readFileSync(allowList, 'utf8'));
    problems.push(...parsed.problems.map((problem) => describeProblem(allowList, problem)));
  }
  return problems;
}
