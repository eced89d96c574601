/** Everything that is counted, in one place: names, help, labels, buckets. docs/metrics.md is made from it. */

/** One metric. Labels have values from closed sets, except those of {@link cappedLabels}. */
export interface MetricDefinition<Labels extends readonly string[] = readonly string[]> {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: Labels;
  /** Upper bounds of a histogram's buckets, without +Inf. */
  readonly buckets: readonly number[];
}

/** Labels whose values come from outside; past a cap on distinct values they read `other`. */
export const cappedLabels: ReadonlySet<string> = new Set(['service', 'source', 'caller']);

function counter<const L extends readonly string[]>(
  name: string,
  help: string,
  labels: L,
): MetricDefinition<L> {
  return { name: `mesh_node_${name}_total`, type: 'counter', help, labels, buckets: [] };
}

function gauge<const L extends readonly string[]>(
  name: string,
  help: string,
  labels: L,
): MetricDefinition<L> {
  return { name: `mesh_node_${name}`, type: 'gauge', help, labels, buckets: [] };
}

function histogram<const L extends readonly string[]>(
  name: string,
  help: string,
  labels: L,
  buckets: readonly number[],
): MetricDefinition<L> {
  return { name: `mesh_node_${name}`, type: 'histogram', help, labels, buckets };
}

/** From loopback (0.1 ms) to a connect timeout. */
const LATENCY = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];
/** From one small request to a database pool's connection. */
const LIFETIME = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 21600, 86400];
/** From an answer out of memory to one that nobody waits for any more. There is one for each service: not too many. */
const ANSWER = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];

export const metrics = {
  connections: counter(
    'connections',
    'Connections that ended, by direction, service, path taken and reason of the end.',
    ['direction', 'service', 'path', 'reason'],
  ),
  connectionsActive: gauge('connections_active', 'Connections that are open now.', ['direction']),
  nameAnswers: counter('name_answers', 'Answers of the DNS responder, by transport and response code.', [
    'transport',
    'code',
  ]),
  connectionsOverLimit: counter(
    'connections_over_limit',
    'Intercepted connections reset because limits.connections was reached.',
    [],
  ),
  callerConnections: counter(
    'caller_connections',
    'Intercepted connections that ended, by the program that called: unit, container or user.',
    ['caller'],
  ),
  callerOverLimit: counter(
    'caller_over_limit',
    'Intercepted connections reset because their caller had its share of connections (limits.callerPercent).',
    ['caller'],
  ),
  connectionBytes: counter(
    'connection_bytes',
    'Bytes carried: sent is from caller to service, received the other way.',
    ['direction', 'service', 'flow'],
  ),
  connectionDuration: histogram(
    'connection_duration_seconds',
    'Life of a connection, from its acceptance to the end of both halves.',
    ['direction', 'path'],
    LIFETIME,
  ),
  requests: counter(
    'requests',
    'Requests of HTTP that ended, by service, class of the status (none: no answer), path taken and reason of the end (protocol: see request_refusals).',
    ['service', 'status_class', 'path', 'reason'],
  ),
  requestsActive: gauge('requests_active', 'Requests of HTTP that have begun and not ended.', []),
  requestDuration: histogram(
    'request_duration_seconds',
    'From the head of a request to the end of its answer; 1xx: of an upgraded connection, to its end.',
    ['service', 'status_class'],
    ANSWER,
  ),
  requestRefusals: counter(
    'request_refusals',
    'Requests that were refused, or failed by their answer, because a message broke a rule of HTTP, by rule.',
    ['rule'],
  ),
  accessDecisions: counter(
    'access_decisions',
    'Connections and requests for instances of this host that access rules decided about (shadow-deny: let through, and written down).',
    ['service', 'action'],
  ),
  requestChannels: counter(
    'request_channels',
    'Requests that went to an instance, by their channel to it: new, or reused after an earlier request.',
    ['service', 'channel'],
  ),
  protocolDetected: counter(
    'protocol_detected',
    'Connections of which nobody had said what they speak, by what came of finding out (ended: one side was over before).',
    ['outcome'],
  ),
  redisCommands: counter(
    'redis_commands',
    'Commands to services with protocol redis, by outcome (ok, error; none: its answer was not seen).',
    ['service', 'command', 'outcome'],
  ),
  redisCommandDuration: histogram(
    'redis_command_duration_seconds',
    'From a command to the end of its answer; without those that may wait on purpose.',
    ['service'],
    ANSWER,
  ),
  redisErrors: counter('redis_errors', 'Errors in answers of redis services, by their first word.', [
    'service',
    'error',
  ]),
  redisSlow: counter('redis_slow_commands', 'Commands that took longer than redis.slow.', [
    'service',
    'command',
  ]),
  redisLost: counter(
    'redis_connections_lost',
    'Connections that are no longer followed, by what could not be: commands, answers, or a pipeline that is too long.',
    ['service', 'reason'],
  ),
  connectDuration: histogram(
    'connect_duration_seconds',
    'Time to reach an instance, from the first attempt to the opened connection or stream.',
    ['path'],
    LATENCY,
  ),
  connectAttempts: counter(
    'connect_attempts',
    'Attempts to reach an instance, by outcome (ok or an error code).',
    ['service', 'outcome'],
  ),
  connectRetries: counter('connect_retries', 'Attempts after the first one of a connection.', ['service']),
  ejections: counter(
    'ejections',
    'Instances set aside, by reason: consecutive (failures in a row), success-rate, latency, probe.',
    ['service', 'reason'],
  ),
  ejected: gauge('ejected_instances', 'Instances that are set aside now.', ['service']),
  breakerOpen: gauge(
    'circuit_breaker_open',
    'Workers in which a bound of a service (circuitBreaker of its policy) refuses, by resource.',
    ['service', 'resource'],
  ),
  breakerRefusals: counter('circuit_breaker_refusals', 'What a bound of a service refused, by resource.', [
    'service',
    'resource',
  ]),
  rateLimited: counter('rate_limited', 'Requests and connections over a rate limit, by its name.', [
    'service',
    'limit',
  ]),
  outages: gauge(
    'outages',
    'Services, and instances called by their own address, that nobody could reach and that refuse at connect.',
    ['kind'],
  ),
  probes: counter(
    'probes',
    'Probes of instances that are held for dead, or whose service has a policy that says so, by outcome.',
    ['service', 'outcome'],
  ),

  tunnels: gauge('tunnels', 'Tunnels by state and by who dialled.', ['state', 'direction']),
  tunnelStreams: gauge('tunnel_streams', 'Open streams on tunnels.', ['direction']),
  tunnelRoundTrip: histogram(
    'tunnel_round_trip_seconds',
    'Round trip of each open tunnel, looked at with every flush of the counts.',
    [],
    LATENCY,
  ),
  tunnelDials: counter('tunnel_dials', 'Tunnels dialled, by outcome (ok or an error code).', ['outcome']),

  registryUp: gauge('registry_up', '1 while the registry answers.', ['source']),
  registryAge: gauge('registry_age_seconds', 'Time since the registry last confirmed what it told.', [
    'source',
  ]),
  registryErrors: counter('registry_errors', 'Times that a registry became unreachable.', ['source']),
  cacheAnswers: counter('cache_answers', 'Answers to on-demand questions, by tier and kind.', [
    'tier',
    'kind',
  ]),
  cacheFileWrites: counter('cache_file_writes', 'Writes of the catalogue to disk, by outcome.', ['outcome']),

  snapshotVersion: gauge('snapshot_version', 'Newest version of the catalogue that workers are given.', []),
  snapshotServices: gauge('snapshot_services', 'Services in the catalogue.', []),
  snapshotInstances: gauge('snapshot_instances', 'Instances in the catalogue.', []),
  workerSnapshotVersion: gauge('worker_snapshot_version', 'Version that a worker has acknowledged.', [
    'process',
  ]),

  policyVersion: gauge('policy_version', 'Version of the policies in force; 0: there are none.', []),
  policyAge: gauge('policy_age_seconds', 'Since the policies in force came into force.', []),
  policyRefused: gauge(
    'policy_refused',
    '1 while what the directory of policies says is refused and the last good ones stay.',
    [],
  ),
  workerPolicyVersion: gauge('worker_policy_version', 'Version of the policies that a worker goes by.', [
    'process',
  ]),

  rulesState: gauge('rules_state', '1 for the state that the interception rules are in.', ['state']),
  rulesReasserts: counter('rules_reasserts', 'Times that changed rules were put back.', []),
  allowListEntries: gauge('allow_list_entries', 'Entries of the allow-list in force.', []),
  allowListErrors: gauge('allow_list_errors', 'Lines of the allow-list file that cannot be used.', []),
  exemptionProblems: gauge(
    'exemption_problems',
    'Users and host names of the allow-list that are not found on this host.',
    [],
  ),
  observedConnections: counter('observed_connections', 'Connections that mode observe has seen begin.', []),
  observedLost: counter('observed_lost', 'Connections that mode observe missed: too many at once.', []),
  observedPairs: gauge('observed_pairs', 'Pairs of caller and destination that are remembered.', []),

  eventLoopDelay: histogram(
    'event_loop_delay_seconds',
    'How late the event loop was at most, in each fifth (supervisor: quarter) of a second.',
    ['process'],
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
  ),
  acceptsRejected: counter(
    'accepts_rejected',
    'Intercepted connections reset because there was no descriptor left to take them with.',
    [],
  ),
  conntrackEntries: gauge(
    'conntrack_entries',
    'Entries of the connection tracking table of this network namespace.',
    [],
  ),
  conntrackLimit: gauge('conntrack_limit', 'Entries that the connection tracking table may have.', []),
  guardOut: gauge(
    'guard_out',
    '1 while new connections go direct because of what the agent measured of itself, by measure.',
    ['measure'],
  ),
  guardWithdrawals: counter(
    'guard_withdrawals',
    'Times that the agent withdrew because of what it measured of itself, by measure.',
    ['measure'],
  ),

  workersRunning: gauge('workers_running', 'Data-plane processes that answer.', []),
  workerRestarts: counter('worker_restarts', 'Workers replaced, by cause.', ['cause']),
  ready: gauge('ready', '1 while nothing blocks readiness.', []),
  certificateExpiry: gauge(
    'certificate_expiry_timestamp_seconds',
    'End of the life of this node’s certificate, in seconds since the epoch.',
    [],
  ),
  configurationReloads: counter('configuration_reloads', 'Reloads of the configuration, by outcome.', [
    'outcome',
  ]),
  accessLogDropped: counter(
    'access_log_dropped',
    'Access-log lines lost because they could not be written.',
    [],
  ),

  processCpu: counter('process_cpu_seconds', 'CPU time, user and system together.', ['process']),
  processMemory: gauge('process_resident_memory_bytes', 'Resident memory.', ['process']),
  processDescriptors: gauge('process_open_descriptors', 'File descriptors in use.', ['process']),
  processDescriptorsLimit: gauge('process_max_descriptors', 'File descriptors that may be in use.', [
    'process',
  ]),
  processStart: gauge('process_start_time_seconds', 'Start of the process, in seconds since the epoch.', [
    'process',
  ]),
  buildInfo: gauge('build_info', 'Always 1; the version of the program.', ['version']),
} as const satisfies Readonly<Record<string, MetricDefinition>>;

const byName: ReadonlyMap<string, MetricDefinition> = new Map(
  Object.values(metrics).map((definition: MetricDefinition) => [definition.name, definition]),
);

/** The metric of this name; undefined for a name that another version of the program may use. */
export function definitionOf(name: string): MetricDefinition | undefined {
  return byName.get(name);
}
