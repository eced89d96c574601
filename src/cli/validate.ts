import { existsSync, readFileSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { describeProblem, parseAllowList, parseProtected } from '../capture/allow-list.ts';
import { configFileOf, loadConfig } from '../config/load.ts';
import { ConfigError, type ConfigProblem, formatProblem } from '../config/problem.ts';
import type { Config } from '../config/schema.ts';
import type { PolicyFile } from '../policy/reading.ts';
import { type CliContext, CliError, exitCodes, print, sourcesOf } from './context.ts';
import { filesOf, looksLikePolicies, policiesOf, problemsOf } from './policy-input.ts';

type Problem = ConfigProblem | string;

/** `validate [PATH…]`. */
export function addValidateCommand(program: Command, context: CliContext): void {
  program
    .command('validate')
    .argument('[path...]', 'configuration file (default: that of --config), files or directories of policies')
    .option('-o, --output <format>', 'table or json', 'table')
    .description(
      'check a configuration with its allow-list and policies, or policies alone, without a running daemon',
    )
    .addHelpText(
      'after',
      `
All mistakes are listed, each with file, line, column, what was found and what was expected. Exit code 3 if any.
A file that speaks of a service, and every directory, is taken for policies; several are checked as one set.

Examples:
  mesh-node validate
  mesh-node validate ./new.yaml --set capture.mode=all
  mesh-node validate ./policies.d
  mesh-node validate -o json | jq '.problems[].path'`,
    )
    .action(async (paths: readonly string[], _options: unknown, command: Command) => {
      const { files, policies } = await sorted(paths);
      if (files.length > 1)
        throw new CliError(exitCodes.usage, `${files.join(' and ')}: one configuration file at a time`);
      const problems: Problem[] = [];
      const checked: string[] = [];
      for (const file of paths.length === 0 ? [undefined] : files) {
        const sources = sourcesOf(command, context, file);
        checked.push(configFileOf(sources));
        problems.push(...(await configProblems(() => loadConfig(sources))));
      }
      if (files.length < paths.length) {
        checked.push(...paths.filter((path) => !files.includes(path)));
        problems.push(...problemsOf(() => policiesOf(policies)));
      }
      print(command, context, { valid: problems.length === 0, problems }, () =>
        problems.length === 0
          ? checked.map((path) => `${path}: valid\n`).join('')
          : problems.map((problem) => `${problemText(problem)}\n`).join(''),
      );
      if (problems.length > 0) throw new CliError(exitCodes.configuration, countText(problems.length));
    });
}

/** Which of the paths are files of configuration, and what the others hold of policies. */
async function sorted(
  paths: readonly string[],
): Promise<{ readonly files: readonly string[]; readonly policies: readonly PolicyFile[] }> {
  const files: string[] = [];
  const policies: PolicyFile[] = [];
  for (const path of paths) {
    const about = statSync(path, { throwIfNoEntry: false });
    if (about?.isDirectory() === true) policies.push(...((await filesOf(path)) ?? []));
    else {
      // What cannot be read is told by who reads the configuration.
      const bytes = about === undefined ? undefined : new Uint8Array(readFileSync(path));
      if (bytes !== undefined && looksLikePolicies(path, bytes)) policies.push({ path, bytes });
      else files.push(path);
    }
  }
  return { files, policies };
}

async function configProblems(load: () => Config): Promise<readonly Problem[]> {
  try {
    const config = load();
    const files = (await filesOf(config.policies.directory)) ?? [];
    return [...allowListProblems(config), ...problemsOf(() => policiesOf(files))];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

function problemText(problem: Problem): string {
  return typeof problem === 'string' ? problem : formatProblem(problem);
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
