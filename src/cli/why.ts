import type { Command } from 'commander';
import type { EndedStatus, WhyAnswer } from '../admin/api.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { durationText, table } from './table.ts';

/** What the reasons of ends mean, in words. Those of HTTP's rules are named by `detail`. */
const MEANINGS: Readonly<Record<string, string>> = {
  done: 'both sides ended it by themselves',
  'client-reset': 'the caller reset it',
  refused: 'nothing listens where the instance should be',
  unreachable: 'there is no way to the instance',
  timeout: 'no answer in time',
  reset: 'the instance, or somebody on the way, reset it',
  denied: 'access control, or the certificate of the caller, does not allow it',
  'no-service': 'nobody knows the service',
  'no-instance': 'the service has no instance that may be used',
  tls: 'no secure tunnel to the other agent',
  overload: 'a bound was reached: a circuit breaker, a rate limit, or a limit of this agent',
  draining: 'the other agent is going away',
  loop: 'it would have come back here',
  'tunnel-lost': 'the tunnel to the other agent was lost',
  protocol: 'a message broke a rule',
  configuration: 'the configuration does not say where it goes',
  system: 'the kernel refused',
};

/** `why [ID]`. */
export function addWhyCommand(program: Command, context: CliContext): void {
  program
    .command('why')
    .argument('[id]', 'of a connection or request, as in the access log')
    .option('-a, --all', 'without an id: also those that ended well')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('-l, --limit <number>', 'without an id: how many are shown', '20')
    .description('show why a connection or request ended as it did; without an id, those that ended badly')
    .addHelpText(
      'after',
      `
Each worker remembers its last 1,000 connections and 1,000 requests.

Examples:
  mesh-node why
  mesh-node why 4711-12
  mesh-node why 4711-12.3 -o json`,
    )
    .action(
      async (
        id: string | undefined,
        options: { readonly all?: boolean; readonly limit: string },
        command: Command,
      ) => {
        const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
        if (id === undefined) {
          const asked = { badly: String(options.all !== true), limit: options.limit };
          const answer = await client.get<WhyAnswer>('/v1/why', asked);
          print(command, context, answer, () => listText(answer.ended, context.columns));
          return;
        }
        const answer = await client.get<WhyAnswer>('/v1/why', { id });
        if (answer.ended.length === 0) {
          throw new CliError(exitCodes.failed, `nobody remembers ${id}: it lives, or ended long ago`);
        }
        print(command, context, answer, () => answer.ended.map(endedText).join('\n'));
      },
    );
}

function listText(ended: readonly EndedStatus[], width: number | undefined): string {
  if (ended.length === 0) return 'nothing ended badly of late\n';
  const columns = ['ID', 'CALLER', 'SERVICE', 'INSTANCE', 'PATH', 'STATUS', 'REASON', 'DETAIL'];
  const rows = ended.map((one) => [
    ...[one.id, one.caller, one.service ?? '-', one.instance ?? '-', one.path],
    ...[one.status === undefined ? '-' : String(one.status), one.reason, one.detail ?? ''],
  ]);
  return table(
    columns.map((title) => ({ title })),
    rows,
    width,
  );
}

/** The story of one of them, line by line. */
function endedText(one: EndedStatus): string {
  const { kind, id, worker, startedAt, durationMs, caller, callerAddress, service, failures = [] } = one;
  const began = new Date(startedAt).toISOString();
  const lines = [
    `${kind} ${id} (${worker}), ${began}, ${durationText(durationMs)}`,
    `  called by    ${caller} from ${callerAddress}${one.callerNode === undefined ? '' : ` on ${one.callerNode}`}`,
    kind === 'request'
      ? `  asked for    ${one.method ?? '?'} ${one.authority ?? ''}${one.target ?? ''}`
      : `  was going to ${one.destination} (${one.direction})`,
    `  which means  ${service === undefined ? 'no service that is known' : `service ${service}`}`,
  ];
  if (one.route !== undefined) lines.push(`  by route     ${one.route}`);
  for (const { instance, path, reason, detail } of failures) {
    lines.push(`  tried        ${instance} (${path}): ${reason}${detail === undefined ? '' : `, ${detail}`}`);
  }
  if (one.instance !== undefined) {
    const again = one.reused === true ? ', on a channel that was open' : '';
    lines.push(`  went to      ${one.instance} in ${one.zone ?? 'its zone'} (${one.path}${again})`);
  } else if (one.path === 'passthrough') lines.push('  went to      where it was going');
  if (one.access !== undefined) lines.push(`  access       ${one.access}`);
  const sent = one.bytesSent ?? one.requestBytes ?? 0;
  const received = one.bytesReceived ?? one.responseBytes ?? 0;
  lines.push(`  carried      ${sent} bytes there, ${received} back`);
  if (one.status !== undefined) lines.push(`  answered     ${one.status === 0 ? 'nothing' : one.status}`);
  if (one.traceId !== undefined) lines.push(`  trace        ${one.traceId}`);
  const meaning = MEANINGS[one.reason] ?? 'a message broke this rule of HTTP';
  lines.push(`  ended        ${one.reason}: ${meaning}${one.detail === undefined ? '' : ` (${one.detail})`}`);
  return `${lines.join('\n')}\n`;
}
