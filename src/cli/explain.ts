import type { Command } from 'commander';
import type { ExplainAnswer } from '../admin/api.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { table } from './table.ts';

const OUTCOMES: Readonly<Record<ExplainAnswer['outcome'], string>> = {
  service: 'it goes to one of the instances above that are marked *',
  passthrough: 'it goes on to where it was going, untouched',
  refused: 'it is refused',
  answered: 'the agent answers by itself',
};

interface ExplainOptions {
  readonly from?: string;
  readonly callAs?: string;
  readonly node?: string;
  readonly method?: string;
  readonly header?: readonly string[];
}

/** `explain URL|ADDRESS`. */
export function addExplainCommand(program: Command, context: CliContext): void {
  program
    .command('explain')
    .argument('<destination>', 'URL, ADDRESS:PORT as an application would connect to, or name of a service')
    .option('-f, --from <program>', 'who calls: a unit, or user:NAME, container:ID')
    .option('--call-as <service>', 'the service that it calls as (default: node.callAs)')
    .option('--node <node>', 'the host that it calls from (default: this one)')
    .option('-X, --method <method>', 'of a request', 'GET')
    .option(
      '-H, --header <name: value>',
      'of a request; repeatable',
      (value: string, before: readonly string[] | undefined) => [...(before ?? []), value],
    )
    .option('-o, --output <format>', 'table or json', 'table')
    .description('show each decision that would be taken about a connection or request')
    .addHelpText(
      'after',
      `
Nothing is sent: the running daemon says what it would do, and what its workers know of the instances.
Exit code 1 when it would be refused.

Examples:
  mesh-node explain http://shop.mesh/cart -H 'x-user: alice' --from checkout.service
  mesh-node explain 10.0.0.12:5432 --from user:postgres
  mesh-node explain orders -o json`,
    )
    .action(async (destination: string, options: ExplainOptions, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const { from, callAs, node, method, header } = options;
      const asked: Record<string, string> = { to: destination };
      if (from !== undefined) asked['from'] = from;
      if (callAs !== undefined) asked['service'] = callAs;
      if (node !== undefined) asked['node'] = node;
      if (method !== undefined) asked['method'] = method;
      if (header !== undefined) asked['headers'] = header.join('\n');
      const answer = await client.get<ExplainAnswer>('/v1/explain', asked);
      print(command, context, answer, () => explainText(answer, context.columns));
      if (answer.outcome === 'refused')
        throw new CliError(exitCodes.failed, `${destination} would be refused`);
    });
}

function explainText({ steps, instances, outcome }: ExplainAnswer, width: number | undefined): string {
  const lines: string[] = [];
  for (const { title, text, details } of steps) {
    lines.push(`${title.padEnd(13)} ${text}`);
    for (const detail of details) lines.push(`${' '.repeat(15)}${detail}`);
  }
  const titles = ['', 'INSTANCE', 'ZONE', 'WEIGHT', 'PATH', 'AGENT', 'ACTIVE', 'LATENCY', 'WHY'];
  const rows = instances.map((one) => [
    ...[one.candidate ? '*' : '', one.id, one.zone, String(one.weight), one.path, one.agent ?? '-'],
    ...[String(one.active), one.latencyMs === undefined ? '-' : `${one.latencyMs.toFixed(1)}ms`, one.reason],
  ]);
  const shown =
    rows.length === 0
      ? ''
      : `\n${table(
          titles.map((title) => ({ title })),
          rows,
          width,
        )}`;
  return `${lines.join('\n')}\n${shown}\nso ${OUTCOMES[outcome]}\n`;
}
