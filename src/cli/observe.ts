import type { Command } from 'commander';
import type { ObserveAnswer, ObserveProposalAnswer } from '../admin/api.ts';
import { type CliContext, configOf, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { durationText, table } from './table.ts';

/** `observe [--propose]`. */
export function addObserveCommand(program: Command, context: CliContext): void {
  program
    .command('observe')
    .option('-p, --propose', 'print an allow-list of what was called and is no service')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('-l, --limit <number>', 'pairs of caller and destination that are shown', '100')
    .description('show who calls whom on this host, as mode observe wrote it down')
    .addHelpText(
      'after',
      `
In mode observe (capture.mode) nothing is redirected; what the kernel shows of connections that begin is counted.

Examples:
  mesh-node observe
  mesh-node observe --limit 1000 -o json
  mesh-node observe --propose >> /etc/mesh-node/allow-list`,
    )
    .action(async (options: { readonly propose?: boolean; readonly limit: string }, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      if (options.propose === true) {
        const answer = await client.get<ObserveProposalAnswer>('/v1/observe/proposal');
        print(command, context, answer, () => answer.allowList);
        return;
      }
      const answer = await client.get<ObserveAnswer>('/v1/observe', { limit: options.limit });
      print(command, context, answer, () => observeText(answer, Date.now(), context.columns));
    });
}

function observeText(answer: ObserveAnswer, now: number, width: number | undefined): string {
  const { recording, mode, problem, seen, lost, forgotten, calls, total } = answer;
  const lines = [
    recording
      ? `observing: ${seen} connections seen since the start`
      : (problem ?? `mode ${mode}: nothing is written down now; this is what was`),
  ];
  if (lost > 0) lines.push(`${lost} connections were not seen: there were too many at once`);
  if (forgotten > 0) lines.push(`${forgotten} pairs not seen for longest were forgotten: there are too many`);
  const rows = calls.map((one) => [
    one.caller,
    one.service ?? '-',
    one.destination ?? '-',
    String(one.count),
    `${durationText(now - one.firstSeen)} ago`,
    `${durationText(now - one.lastSeen)} ago`,
    one.service !== undefined ? 'service' : one.allowed ? 'allow-list' : 'open',
  ]);
  const columns = [
    { title: 'CALLER' },
    { title: 'SERVICE' },
    { title: 'DESTINATION' },
    { title: 'COUNT', align: 'right' },
    { title: 'FIRST' },
    { title: 'LAST' },
    { title: 'KNOWN AS' },
  ] as const;
  const rest = calls.length < total ? `… and ${total - calls.length} more (--limit)\n` : '';
  return `${lines.join('\n')}\n\n${table(columns, rows, width)}${rest}`;
}
