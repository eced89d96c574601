import { type Command, InvalidArgumentError } from 'commander';
import type { AuthzAnswer } from '../admin/api.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';

interface CheckOptions {
  readonly method?: string;
  readonly path?: string;
  readonly port?: string;
  readonly node?: string;
  readonly as?: string;
}

/** `authz check CALLER SERVICE`. */
export function addAuthzCommands(program: Command, context: CliContext): void {
  const authz = program.command('authz').description('who may call whom, by the access rules in force');
  authz
    .command('check')
    .argument('<caller>', 'unit:NAME, user:NAME, container:ID, service:NAME, node:NAME or unknown')
    .argument('<service>', 'the service that is called')
    .option('--method <method>', 'method of the request')
    .option('--path <path>', 'path of the request, as it is sent')
    .option('--port <port>', 'port of the instance, where it has several', portOf)
    .option('--node <name>', 'host of the caller (default: this one)')
    .option('--as <service>', 'service that the caller speaks for')
    .option('-o, --output <format>', 'text or json', 'text')
    .description('ask the running daemon whether a caller may call a service, and by which rule')
    .addHelpText(
      'after',
      `
Exit code 0 when it is allowed (in shadow, too), 1 when it is denied. The daemon of the called instance decides; ask there,
or keep the same policies on all hosts.

Examples:
  mesh-node authz check unit:front orders
  mesh-node authz check unit:front orders --method DELETE --path /admin/users --node web2
  mesh-node authz check service:shop orders -o json`,
    )
    .action(async (caller: string, service: string, options: CheckOptions, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const { method, path, port, node, as } = options;
      const answer = await client.get<AuthzAnswer>('/v1/authz', {
        ...{ caller, service },
        ...(method === undefined ? {} : { method }),
        ...(path === undefined ? {} : { path }),
        ...(port === undefined ? {} : { port }),
        ...(node === undefined ? {} : { node }),
        ...(as === undefined ? {} : { as }),
      });
      print(command, context, answer, () => answerText(answer));
      if (answer.decision === 'requests') {
        throw new CliError(exitCodes.usage, answer.reason, '--method and --path');
      }
      if (answer.decision === 'deny') throw new CliError(exitCodes.failed, answer.reason);
    });
}

function answerText({ decision, reason, origin, notes }: AuthzAnswer): string {
  const words = {
    allow: 'allowed',
    deny: 'denied',
    'shadow-deny': 'allowed (shadow)',
    requests: 'undecided',
  } as const;
  const lines = [`${words[decision]}: ${reason}`];
  if (origin !== undefined) lines.push(`written in ${origin}`);
  lines.push(...notes.map((note) => `note: ${note}`));
  return `${lines.join('\n')}\n`;
}

function portOf(text: string): string {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw new InvalidArgumentError('Expected a port.');
  return text;
}
