import { readFileSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import type { PoliciesAnswer } from '../admin/api.ts';
import type { PolicySet } from '../model/policy.ts';
import { differences, type SectionChange, type ValueChange } from '../policy/difference.ts';
import type { PolicyFile, PolicyOrigins } from '../policy/reading.ts';
import { withUnits } from '../policy/written.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { filesOf, policiesOf, withFile } from './policy-input.ts';

/** Policies, and what they are called in the answer. */
interface Side {
  readonly policies: Omit<PolicySet, 'version'>;
  readonly origins: PolicyOrigins;
  readonly title: string;
}

/** `diff [PATH]`. */
export function addDiffCommand(program: Command, context: CliContext): void {
  program
    .command('diff')
    .argument(
      '[path]',
      'directory of policies, or a file that would be put into it (default: policies.directory)',
    )
    .option('-o, --output <format>', 'table or json', 'table')
    .description('show what policies would change, service by service, before they are put in place')
    .addHelpText(
      'after',
      `
Compared with what the running daemon goes by; when none runs, with the directory of the configuration.
Nothing is changed. Exit code 0 whether or not something differs, 3 when the policies are wrong.

Examples:
  mesh-node diff ./web.yaml
  mesh-node diff ./policies.d
  mesh-node diff -o json | jq '.changes[].service'`,
    )
    .action(async (path: string | undefined, _options: unknown, command: Command) => {
      const config = configOf(command, context);
      const { directory } = config.policies;
      const after = await newSide(path, directory);
      const client = new DaemonClient(config.daemon.runtimeDirectory);
      const before = (await runningSide(client, path === undefined)) ?? (await directorySide(directory));
      const changes = differences(before.policies, after.policies);
      print(command, context, { against: before.title, changes }, () => {
        if (changes.length === 0) return `no difference to ${before.title}`;
        return `compared with ${before.title}\n${changes.map((one) => changeText(one, before, after)).join('')}`;
      });
    });
}

async function newSide(path: string | undefined, directory: string): Promise<Side> {
  const about = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  if (path !== undefined && about === undefined)
    throw new CliError(exitCodes.system, `there is no file or directory ${path}`);
  if (path === undefined || about?.isDirectory() === true)
    return await directorySide(path ?? directory, true);
  const file: PolicyFile = { path, bytes: new Uint8Array(readFileSync(path)) };
  const files = (await filesOf(directory)) ?? [];
  return { ...policiesOf(withFile(files, directory, file)), title: path };
}

async function directorySide(directory: string, mustExist = false): Promise<Side> {
  const files = await filesOf(directory);
  if (files === undefined && mustExist)
    throw new CliError(exitCodes.system, `there is no directory ${directory}`);
  return { ...policiesOf(files ?? []), title: directory };
}

/** Undefined when no daemon runs; `needed`: there is nothing else to compare with. */
async function runningSide(client: DaemonClient, needed: boolean): Promise<Side | undefined> {
  try {
    const { policies, origins, version } = await client.get<PoliciesAnswer>('/v1/policies');
    return { policies, origins, title: `the running agent, version ${version}` };
  } catch (error) {
    if (needed || !(error instanceof CliError) || error.exitCode !== exitCodes.unreachable) throw error;
    return undefined;
  }
}

function changeText({ service, section, kind, values }: SectionChange, before: Side, after: Side): string {
  const at = ({ origins }: Side) =>
    Object.hasOwn(origins, service) ? origins[service]![section] : undefined;
  const where = [at(before), at(after)].filter((one) => one !== undefined);
  const from = [...new Set(where)].join(' → ');
  const name = service === '*' ? '* (services without the section)' : service;
  const lines = values.map((value) => `    ${valueText(value, section)}\n`).join('');
  return `\n${name}: ${section} ${kind}  (${from})\n${lines}`;
}

function valueText({ path, before, after }: ValueChange, section: string): string {
  const key = path.split('.').at(-1)!;
  const text = (value: unknown) => JSON.stringify(withUnits(value, key));
  const name = path === '' ? section : path;
  if (before === undefined) return `+ ${name}: ${text(after)}`;
  if (after === undefined) return `- ${name}: ${text(before)}`;
  return `  ${name}: ${text(before)} → ${text(after)}`;
}
