import type { Command } from 'commander';
import type { ResolveAnswer } from '../admin/api.ts';
import { endpointKey, parseEndpoint } from '../model/address.ts';
import { type Service, servicePorts } from '../model/service.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { table } from './table.ts';

/** `resolve NAME|ADDRESS`. */
export function addResolveCommand(program: Command, context: CliContext): void {
  program
    .command('resolve')
    .argument('<destination>', 'service name, or ADDRESS:PORT as an application would connect to')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('show what a name or an address means to the running daemon, and who would answer')
    .addHelpText(
      'after',
      `
Exit code 1 when nobody knows it: a connection there passes through untouched.

Examples:
  mesh-node resolve orders
  mesh-node resolve 10.0.0.12:8080
  mesh-node resolve '[fd00::12]:8080' -o json`,
    )
    .action(async (destination: string, _options: unknown, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const endpoint = parseEndpoint(destination);
      const asked: Record<string, string> =
        endpoint === undefined ? { name: destination } : { address: endpointKey(endpoint) };
      const answer = await client.get<ResolveAnswer>('/v1/resolve', asked);
      print(command, context, answer, () => resolveText(answer, context.columns));
      if (answer.verdict === 'unknown') throw new CliError(exitCodes.failed, `nobody knows ${destination}`);
    });
}

function resolveText(answer: ResolveAnswer, width: number | undefined): string {
  const rows = answer.services.flatMap((service) =>
    service.instances.map((instance) => [
      service.name,
      instance.id,
      endpointKey(instance.address),
      instance.node ?? '-',
      instance.zone,
      String(instance.weight),
      instance.draining ? 'draining' : 'in use',
    ]),
  );
  const header = `${answer.verdict}: ${answer.reason}\n${answer.services.map(addressesText).join('')}`;
  if (rows.length === 0) return header;
  const columns = [
    { title: 'SERVICE' },
    { title: 'INSTANCE' },
    { title: 'ADDRESS' },
    { title: 'NODE' },
    { title: 'ZONE' },
    { title: 'WEIGHT', align: 'right' },
    { title: 'STATE' },
  ] as const;
  return `${header}\n${table(columns, rows, width)}`;
}

/** At which addresses of its own the service is reached at this host. */
function addressesText(service: Service): string {
  const { name, virtual = [], resolved = [] } = service;
  const at =
    virtual.length === 0
      ? ''
      : `${name}: ${virtual.join(', ')}; ports ${servicePorts(service).join(', ') || 'none'}\n`;
  const ips = [...new Set(resolved.map(({ ip }) => ip))];
  return ips.length === 0 ? at : `${at}${name}: its hosts resolve to ${ips.join(', ')}\n`;
}
