import type { Command } from 'commander';
import { stringify } from 'yaml';
import type { PoliciesAnswer } from '../admin/api.ts';
import type { ServicePolicy } from '../model/policy.ts';
import { sectionNames } from '../policy/schema/document.ts';
import { withUnits } from '../policy/written.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';

const COMMON = '*';

/** `policies [SERVICE]`. */
export function addPoliciesCommand(program: Command, context: CliContext): void {
  program
    .command('policies')
    .argument('[service]', 'only what holds for this service, what it has of * included')
    .option('-o, --output <format>', 'table or json', 'table')
    .description(
      'show the policies that the running daemon goes by, complete, each section with its file and line',
    )
    .addHelpText(
      'after',
      `
Exit code 1 when nothing is said of the service.

Examples:
  mesh-node policies
  mesh-node policies orders
  mesh-node policies orders -o json | jq .policy.retries`,
    )
    .action(async (service: string | undefined, _options: unknown, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const answer = await client.get<PoliciesAnswer>('/v1/policies');
      if (service === undefined) {
        print(command, context, answer, () => allText(answer));
        return;
      }
      const found = ofService(answer, service);
      print(command, context, { service, version: answer.version, ...found }, () => sectionsText(found));
      if (Object.keys(found.policy).length === 0)
        throw new CliError(exitCodes.failed, `nothing is said of ${service}`);
    });
}

interface Said {
  readonly policy: ServicePolicy;
  readonly origins: Readonly<Record<string, string>>;
}

function ofService({ policies, origins }: PoliciesAnswer, service: string): Said {
  const own = <T>(all: Readonly<Record<string, T>>, name: string) =>
    Object.hasOwn(all, name) ? all[name] : undefined;
  return {
    policy: { ...policies.common, ...own(policies.services, service) },
    origins: { ...own(origins, COMMON), ...own(origins, service) },
  };
}

function allText(answer: PoliciesAnswer): string {
  const { version, source, policies, origins, refused } = answer;
  const lines = [`version ${version}${source === 'kept' ? ', of an earlier run' : ''}\n`];
  for (const problem of refused) lines.push(`refused: ${problem}\n`);
  const all = Object.entries({ [COMMON]: policies.common, ...policies.services });
  for (const [service, policy] of all) {
    if (Object.keys(policy).length === 0) continue;
    const said = sectionsText({ policy, origins: Object.hasOwn(origins, service) ? origins[service]! : {} });
    lines.push(`\n${service}\n${said.replace(/^(?=.)/gm, '  ')}`);
  }
  if (all.every(([, policy]) => Object.keys(policy).length === 0))
    lines.push('nothing is said of any service\n');
  return lines.join('');
}

/** As in a document, with everything that was left out. */
function sectionsText({ policy, origins }: Said): string {
  return sectionNames
    .filter((section) => policy[section] !== undefined)
    .map((section) => {
      const yaml = stringify({ [section]: withUnits(policy[section]) }, { lineWidth: 0 });
      return `# ${origins[section] ?? 'origin not known'}\n${yaml}`;
    })
    .join('');
}
