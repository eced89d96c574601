import { Argument, type Command } from 'commander';
import type {
  ConnectionsAnswer,
  GuardStatus,
  PolicyStatus,
  RegistriesAnswer,
  RulesAnswer,
  ServicesAnswer,
  StatusAnswer,
  TunnelsAnswer,
} from '../admin/api.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { suspensionText } from './suspensions.ts';
import { bytesText, durationText, fields, table } from './table.ts';

interface View {
  readonly path: string;
  readonly limited: boolean;
  text(answer: unknown, now: number, width: number | undefined): string;
}

/** A view with the type of its answer known to it alone. */
function view<T>(
  path: string,
  limited: boolean,
  text: (answer: T, now: number, width: number | undefined) => string,
): View {
  return { path, limited, text: (answer, now, width) => text(answer as T, now, width) };
}

const views: Readonly<Record<string, View>> = {
  agent: view<StatusAnswer>('/v1/status', false, agentText),
  services: view<ServicesAnswer>('/v1/services', true, (answer, _now, width) =>
    listed(
      table(
        [
          { title: 'SERVICE' },
          { title: 'PROTOCOL' },
          { title: 'MODE' },
          { title: 'INSTANCES', align: 'right' },
          { title: 'DRAINING', align: 'right' },
          { title: 'VIRTUAL ADDRESS' },
          { title: 'SOURCE' },
        ],
        answer.services.map((one) => [
          one.name,
          one.protocol,
          one.mode,
          String(one.instances),
          String(one.draining),
          one.virtual?.[0] ?? '-',
          one.source ?? '-',
        ]),
        width,
      ),
      answer.services.length,
      answer.total,
    ),
  ),
  connections: view<ConnectionsAnswer>('/v1/connections', true, (answer, now, width) =>
    listed(
      table(
        [
          { title: 'ID' },
          { title: 'DIRECTION' },
          { title: 'AGE', align: 'right' },
          { title: 'CALLER' },
          { title: 'DESTINATION' },
          { title: 'SERVICE' },
          { title: 'INSTANCE' },
          { title: 'PATH' },
          { title: 'SENT', align: 'right' },
          { title: 'RECEIVED', align: 'right' },
        ],
        answer.connections.map((one) => [
          one.id,
          one.direction,
          durationText(now - one.startedAt),
          one.caller,
          one.destination,
          one.service ?? '-',
          one.instance ?? '-',
          one.path,
          bytesText(one.bytesSent),
          bytesText(one.bytesReceived),
        ]),
        width,
      ),
      answer.connections.length,
      answer.total,
    ),
  ),
  tunnels: view<TunnelsAnswer>('/v1/tunnels', true, (answer, now, width) =>
    listed(
      table(
        [
          { title: 'PEER' },
          { title: 'ADDRESS' },
          { title: 'WORKER' },
          { title: 'DIRECTION' },
          { title: 'STATE' },
          { title: 'STREAMS', align: 'right' },
          { title: 'RTT', align: 'right' },
          { title: 'AGE', align: 'right' },
        ],
        answer.tunnels.map((one) => [
          one.peer,
          one.address,
          one.worker,
          one.direction,
          one.state,
          String(one.streams),
          one.roundTripMs === undefined ? '-' : `${one.roundTripMs.toFixed(2)}ms`,
          durationText(now - one.since),
        ]),
        width,
      ),
      answer.tunnels.length,
      answer.total,
    ),
  ),
  registries: view<RegistriesAnswer>('/v1/registries', false, (answer, _now, width) =>
    table(
      [
        { title: 'SOURCE' },
        { title: 'STATE' },
        { title: 'AGE', align: 'right' },
        { title: 'SERVICES', align: 'right' },
        { title: 'INSTANCES', align: 'right' },
        { title: 'LAST ERROR' },
      ],
      answer.registries.map((one) => [
        one.source,
        one.state,
        one.ageMs === undefined ? 'never' : durationText(one.ageMs),
        String(one.services),
        String(one.instances),
        one.lastError ?? '-',
      ]),
      width,
    ),
  ),
  rules: view<RulesAnswer>('/v1/rules', false, (answer) => {
    const pairs: [string, string][] = [
      ['state', answer.state],
      ...answer.suspensions.map((reason): [string, string] => ['  goes direct', suspensionText(reason)]),
      ['mode', answer.mode],
      ['backend', answer.backend ?? 'not known yet'],
      ['destinations', `${answer.destinations.ipv4} IPv4, ${answer.destinations.ipv6} IPv6`],
      ['allow-list', `${answer.allowEntries} entries`],
      ['put back', `${answer.reasserted} times`],
    ];
    for (const problem of answer.allowListProblems) pairs.push(['allow-list problem', problem]);
    for (const problem of answer.exemptionProblems) pairs.push(['left out for now', problem]);
    if (answer.waitingUnits.length > 0) pairs.push(['units not running', answer.waitingUnits.join(', ')]);
    if (answer.percent < 100) pairs.push(['share', `${answer.percent} % of new connections`]);
    for (const [what, names] of Object.entries(answer.only ?? {}))
      if (names.length > 0) pairs.push([`only ${what}`, names.join(', ')]);
    if (answer.lastError !== undefined) pairs.push(['last error', answer.lastError]);
    if (answer.refusedAlone > 0)
      pairs.push([
        'without the agent',
        `${answer.refusedAlone} services are too many for their virtual addresses to lead anywhere`,
      ]);
    if (answer.fallbackProblem !== undefined)
      pairs.push(['not written', `what holds without the agent: ${answer.fallbackProblem}`]);
    return fields(pairs);
  }),
};

/** `status [WHAT]`. */
export function addStatusCommand(program: Command, context: CliContext): void {
  program
    .command('status')
    .addArgument(new Argument('[what]', 'part to show').choices(Object.keys(views)).default('agent'))
    .option('-o, --output <format>', 'table or json', 'table')
    .option('-l, --limit <number>', 'entries of a list that are shown', '100')
    .description('show what the running daemon does')
    .addHelpText(
      'after',
      `
Exit code 1 when the agent is not ready (only for status without a part, or "status agent").

Examples:
  mesh-node status
  mesh-node status connections --limit 1000
  mesh-node status registries -o json`,
    )
    .action(async (what: string, options: { readonly limit: string }, command: Command) => {
      const shown = views[what]!;
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const answer = await client.get<unknown>(shown.path, shown.limited ? { limit: options.limit } : {});
      print(command, context, answer, () => shown.text(answer, Date.now(), context.columns));
      if (what === 'agent' && !(answer as StatusAnswer).ready) {
        throw new CliError(exitCodes.failed, 'the agent is not ready');
      }
    });
}

function agentText(answer: StatusAnswer, now: number, width: number | undefined): string {
  const { snapshot } = answer;
  const expiry = answer.certificateExpiresAt;
  const pairs: [string, string][] = [
    ['node', `${answer.node} (zone ${answer.zone}, ${answer.role})`],
    ['version', answer.version],
    ['running', `${durationText(now - answer.startedAt)}, pid ${answer.pid}`],
    ['ready', answer.ready ? 'yes' : 'no'],
    ...answer.blockers.map(({ name, reason }): [string, string] => ['  blocked by', `${name}: ${reason}`]),
    ['draining', answer.draining ? 'yes' : 'no'],
    ['interception', answer.interception.state],
    ...answer.interception.suspensions.map((reason): [string, string] => [
      '  goes direct',
      suspensionText(reason),
    ]),
    ...guardPairs(answer.guard, now),
    ...outagePairs(answer.outages),
    ...policyPairs(answer.policies, now),
    [
      'catalogue',
      `version ${snapshot.version}: ${snapshot.services} services, ${snapshot.instances} instances`,
    ],
    ['certificate', expiry === undefined ? 'none' : `ends in ${durationText(Math.max(0, expiry - now))}`],
  ];
  const workers = table(
    [
      { title: 'WORKER' },
      { title: 'PID', align: 'right' },
      { title: 'STATE' },
      { title: 'CATALOGUE', align: 'right' },
      { title: 'POLICIES', align: 'right' },
      { title: 'RESTARTS', align: 'right' },
    ],
    answer.workers.map((one) => [
      one.name,
      String(one.pid),
      one.state,
      String(one.snapshotVersion),
      one.policyVersion < 0 ? '-' : String(one.policyVersion),
      String(one.restarts),
    ]),
    width,
  );
  return `${fields(pairs)}\n${workers}`;
}

function guardPairs(guard: GuardStatus, now: number): [string, string][] {
  if (guard.state === 'in') return [];
  const since = guard.since === undefined ? '' : `, for ${durationText(now - guard.since)}`;
  return [['guard', `out${since}: ${guard.reason ?? 'no reason known'}`]];
}

/** Problems that are shown; `mesh-node validate` shows all. */
const MOST_REFUSALS = 5;

function policyPairs(policies: PolicyStatus, now: number): [string, string][] {
  const { version, services, since, source, refused, warnings } = policies;
  const from = source === 'kept' ? ', of an earlier run' : '';
  const force =
    version === 0
      ? 'none'
      : `version ${version}${from}: ${services} services, for ${durationText(now - since)}`;
  const more = refused.length - MOST_REFUSALS;
  return [
    ['policies', force],
    ...refused.slice(0, MOST_REFUSALS).map((problem): [string, string] => ['  refused', problem]),
    ...(more > 0 ? [['  refused', `and ${more} more`] as [string, string]] : []),
    ...warnings.map((warning): [string, string] => ['  warning', warning]),
  ];
}

/** What is shown of many. */
const MOST_OUTAGES = 20;

function outagePairs(outages: StatusAnswer['outages']): [string, string][] {
  const shown = outages
    .slice(0, MOST_OUTAGES)
    .map(({ service, instance }): [string, string] => [
      'nobody answers',
      instance === undefined ? service : `${service}, instance ${instance}`,
    ]);
  const more = outages.length - shown.length;
  return more === 0 ? shown : [...shown, ['nobody answers', `and ${more} more`]];
}

function listed(text: string, shown: number, total: number): string {
  return shown < total ? `${text}… and ${total - shown} more (--limit)\n` : text;
}
