import { z } from 'zod';
import { parseEndpoint, parseIp } from '../model/address.ts';
import { balancePolicies, parseNodeName, parseServiceName } from '../model/service.ts';
import { duration, size } from './units.ts';

/*
 * The one schema of /etc/mesh-node/mesh-node.yaml: it gives the types, the defaults (here and nowhere else), the
 * validation, docs/configuration.md and docs/configuration.schema.json.
 */

const port = (fallback: number) => z.int().min(1).max(65535).default(fallback);
const count = (fallback: number) => z.int().min(1).max(1_000_000).default(fallback);
const absolutePath = z.string().regex(/^\//, 'expected an absolute path').meta({ title: 'absolute path' });
const path = (fallback: string) => absolutePath.default(fallback);
const name = (what: string, parse: (text: string) => string | undefined) =>
  z
    .string()
    .refine((text) => parse(text) !== undefined, `expected a ${what}: lower-case letters, digits, - and .`)
    .meta({ title: what });
const nodeName = name('node name', parseNodeName);
const zoneName = name('zone name', parseNodeName);
const serviceName = name('service name', parseServiceName);
const ip = z
  .string()
  .refine((text) => parseIp(text) !== undefined, 'expected an IPv4 or IPv6 address')
  .meta({ title: 'IP address' });
const endpoint = z
  .string()
  .refine(
    (text) => parseEndpoint(text) !== undefined,
    'expected ADDRESS:PORT, for example 10.0.0.1:15008 or [fd00::1]:15008',
  )
  .meta({ title: 'address:port' });

const node = z
  .strictObject({
    name: nodeName
      .optional()
      .describe(
        'Name of this host in the mesh; by default its host name. Must be the name in its certificate.',
      ),
    zone: zoneName.default('default').describe('The data centre (failure domain) this host stands in.'),
    callAs: serviceName
      .optional()
      .describe('Service that this host calls as; its certificate must allow it.'),
  })
  .prefault({})
  .describe('Who this host is.');

const capture = z
  .strictObject({
    mode: z
      .enum(['services', 'all', 'observe', 'off'])
      .default('services')
      .describe(
        'What is intercepted: only addresses of known services, everything but the allow-list, or nothing; `observe` touches nothing and writes down who calls whom.',
      ),
    percent: z
      .number()
      .min(0)
      .max(100)
      .default(100)
      .describe('Share of new connections that is intercepted, drawn for each; the others go direct.'),
    only: z
      .strictObject({
        services: z.array(serviceName).max(1024).default([]).describe('These services and no others.'),
        users: z
          .array(z.string().regex(/^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}$/, 'expected a user name or number'))
          .max(256)
          .default([])
          .describe('Connections of these users, and of `units`, and of nobody else.'),
        units: z
          .array(
            z
              .string()
              .regex(/^[a-zA-Z0-9:_.\\@-]{1,247}\.(?:service|scope|slice)$/, 'expected a systemd unit'),
          )
          .max(256)
          .default([])
          .describe('Connections of these systemd units, and of `users`, and of nobody else.'),
      })
      .prefault({})
      .describe('Gradual introduction: what is intercepted at first. Empty lists restrict nothing.'),
    deadAfter: duration('1s', 0).describe(
      'Workers that have given the kernel no sign of life for this long are passed by: new connections go direct. Whole seconds; 0 turns it off.',
    ),
    disabledFile: path('/etc/mesh-node/disabled').describe(
      'While this file exists nothing is intercepted (`mesh-node bypass on` makes it); it survives a reboot.',
    ),
    port: port(15001).describe(
      'Loopback port of the capture listener; outside net.ipv4.ip_local_port_range.',
    ),
    bridges: z
      .array(
        z
          .string()
          .regex(/^[a-zA-Z0-9_.-]{1,15}$/, 'expected an interface name')
          .meta({ title: 'interface name' }),
      )
      .max(64)
      .default([])
      .describe('Bridges of local containers whose outgoing connections are intercepted too (PREROUTING).'),
    allowList: path('/etc/mesh-node/allow-list').describe(
      'File of destinations, users and units that are never touched; watched while running.',
    ),
    ipv6: z
      .enum(['auto', 'on', 'off'])
      .default('auto')
      .describe('Intercept IPv6 too; auto: when the host has it.'),
    backend: z
      .enum(['auto', 'nft', 'legacy'])
      .default('auto')
      .describe('iptables backend; auto takes the one of the iptables command and remembers it.'),
    observeGroup: port(15_008).describe(
      'NFLOG group by which the kernel shows connections in mode `observe`; no other program may use it.',
    ),
    reassertInterval: duration('10s').describe(
      'How often the rules are verified and, where they were changed, put back.',
    ),
    protect: z
      .array(z.string())
      .default(['tcp/22', '169.254.169.254'])
      .describe(
        'Destinations, as in the allow-list, that hold before any file is read, so that no rule can lock the operator out.',
      ),
  })
  .prefault({})
  .describe('Interception by iptables.');

const network = (family: 4 | 6, fallback: string) =>
  z
    .union([
      z.literal('off'),
      z
        .string()
        .refine(
          (text) => {
            const [base = '', prefix = ''] = text.split('/');
            const address = parseIp(base);
            const width = family === 4 ? 24 : 96;
            return (
              address !== undefined &&
              address.includes(':') === (family === 6) &&
              /^\d+$/.test(prefix) &&
              Number(prefix) <= width
            );
          },
          `expected off or an IPv${family} network with a prefix of at most ${family === 4 ? 24 : 96}`,
        )
        .meta({ title: 'network' }),
    ])
    .default(fallback);

const names = z
  .strictObject({
    domain: name('domain', parseServiceName)
      .default('mesh')
      .describe('`<service>.<domain>` resolves to the virtual address of the service on this host.'),
    port: port(15053).describe(
      'Port of the DNS responder on loopback, UDP and TCP; only queries for the domain meet it.',
    ),
    ipv4: network(4, '240.0.0.0/4').describe('Virtual IPv4 addresses, or off.'),
    ipv6: network(6, 'fd6d:6573:6800::/48').describe('Virtual IPv6 addresses, or off.'),
    ttl: duration('5s').describe('How long an answer may be kept by whoever asked.'),
    reuseAfter: duration('168h').describe(
      'A virtual address whose service is gone is given to no other for this long.',
    ),
    resolveInterval: duration('30s').describe(
      'How often host names (`hosts` of services, names in the allow-list) are resolved again.',
    ),
    resolveTimeout: duration('5s').describe('Bound on resolving one host name.'),
  })
  .prefault({})
  .describe('Virtual addresses and names of services.');

const caller = z
  .strictObject({
    identify: z
      .boolean()
      .default(true)
      .describe('Ask the kernel which unit, container or user is behind each intercepted connection.'),
    timeout: duration('1s').describe(
      'Bound on finding the name of a control group or container seen for the first time. What is written down waits for it; a connection itself only where the allow-list names units.',
    ),
  })
  .prefault({})
  .describe('Who is calling.');

const guard = z
  .strictObject({
    window: duration('3s').describe('The agent is judged by what it measured within this time.'),
    maxDelay: duration('500ms').describe(
      'A worker whose event loop is later than this, again and again, is overloaded.',
    ),
    maxErrorPercent: z
      .int()
      .min(1)
      .max(100)
      .default(50)
      .describe(
        "Share of new connections that fail by the agent's own fault (at least 20 of them) before it withdraws.",
      ),
    maxDescriptorsPercent: z.int().min(1).max(100).default(90).describe('Descriptors of a worker in use.'),
    maxConntrackPercent: z
      .int()
      .min(1)
      .max(100)
      .default(90)
      .describe('Entries of the connection tracking table in use.'),
    returnAfter: duration('10s').describe(
      'New connections are taken again after this long without a reason; doubles when it withdraws again soon.',
    ),
    returnMax: duration('5m').describe('Longest time out.'),
  })
  .prefault({})
  .describe('The agent measures itself, and withdraws before its users notice: new connections go direct.');

const tunnel = z
  .strictObject({
    listen: ip.default('::').describe('Address of the tunnel listener.'),
    port: port(15008).describe('Port of the tunnel listener.'),
    handshakeTimeout: duration('5s').describe('Bound on TCP connect, TLS and WebSocket handshake together.'),
    keepaliveInterval: duration('10s').describe(
      'A tunnel without traffic is pinged this often; two missed answers end it.',
    ),
    idleTimeout: duration('5m').describe('A tunnel without streams is closed after this.'),
    maxStreams: count(4096).describe('Streams that a peer may have open on one tunnel.'),
    maxTunnels: count(4096).describe('Tunnels of one worker, both directions.'),
    initialWindow: size('256KiB').describe('Credit of a new stream; grows with the delay of the path.'),
    maxWindow: size('16MiB').describe('Most credit of one stream.'),
    sessionBuffer: size('32MiB').describe(
      'Most bytes that one tunnel holds for slow readers; past it no stream gets new credit.',
    ),
    backoffBase: duration('100ms').describe('First pause after a failed dial; doubles with full jitter.'),
    backoffMax: duration('10s').describe('Longest pause between dials of one peer.'),
  })
  .prefault({})
  .describe('Tunnels between hosts.');

const identity = z
  .strictObject({
    trustDomain: name('trust domain', parseNodeName).default('mesh').describe('SPIFFE trust domain.'),
    authority: path('/etc/mesh-node/identity/ca.crt').describe(
      'PEM bundle of the authorities that are believed.',
    ),
    certificate: path('/etc/mesh-node/identity/node.crt').describe(
      'PEM certificate of this node (mesh-node ca issue).',
    ),
    key: path('/etc/mesh-node/identity/node.key').describe('PEM private key of this node; mode 0600.'),
  })
  .prefault({})
  .describe('Certificates.');

const fileRegistry = z.strictObject({
  type: z.literal('file'),
  directory: path('/etc/mesh-node/catalogue.d').describe('Directory of YAML files, watched.'),
});
const serfRegistry = z.strictObject({
  type: z.literal('serf'),
  address: endpoint.default('127.0.0.1:7373').describe('RPC address of the local Serf agent.'),
  authKeyFile: absolutePath.optional().describe('File with the RPC auth key; mode 0600.'),
  resyncInterval: duration('30s').describe(
    'How often the full member list is compared, because event streams stall silently.',
  ),
  timeout: duration('5s').describe('Bound on one RPC answer.'),
});
const registry = z.discriminatedUnion('type', [fileRegistry, serfRegistry]);

const cache = z
  .strictObject({
    file: path('/var/lib/mesh-node/catalogue.cache').describe(
      'Where the catalogue is kept for a cold boot without registry.',
    ),
    writeDelay: duration('500ms', 0).describe('Changes within this time are written together.'),
    memoryEntries: count(10_000).describe('Answers to on-demand questions kept in memory.'),
    freshFor: duration('30s').describe('An answer this young is used as it is.'),
    staleFor: duration('10m').describe('An older one is used while a new one is fetched.'),
    negativeFor: duration('5s', 0).describe('How long "nobody knows" is remembered.'),
    lookupTimeout: duration('500ms').describe('Bound on one on-demand question to the registries.'),
  })
  .prefault({})
  .describe('Memory and file tiers in front of the registries.');

const balance = z
  .strictObject({
    policy: z
      .enum(balancePolicies)
      .default('round-robin')
      .describe('For services that name no policy of their own.'),
    connectTimeout: duration('5s').describe('Bound on reaching one instance.'),
    agentPatience: duration('1s').describe(
      'How long the agent of a permissive instance may take to answer before the instance is reached directly.',
    ),
    attempts: z
      .int()
      .min(1)
      .max(10)
      .default(3)
      .describe('Instances tried for one connection, as long as no byte reached any.'),
    replayBuffer: size('64KiB', 0).describe("Most of a caller's first bytes kept for another attempt."),
    ejectAfter: count(5).describe('Consecutive failures after which an instance is set aside.'),
    ejectBase: duration('5s').describe('First time out; doubles with each ejection in a row.'),
    ejectMax: duration('5m').describe('Longest time out.'),
    probeInterval: duration('1s').describe(
      'A service none of whose instances can be reached refuses at connect, and is probed this often.',
    ),
    maxEjectedPercent: z
      .int()
      .min(0)
      .max(100)
      .default(50)
      .describe('Share of a service that may be out at once.'),
  })
  .prefault({})
  .describe('How an instance is picked, and set aside when it fails.');

const zone = z.strictObject({
  name: zoneName.describe('A zone other than this one.'),
  gateways: z
    .array(
      z.strictObject({
        node: nodeName.describe('Name in the gateway’s certificate.'),
        address: endpoint.describe('Its tunnel listener.'),
      }),
    )
    .min(1)
    .max(64)
    .describe('Zone-agents through which the zone is reached, any of them.'),
});

const zoneAgent = z
  .strictObject({
    maxHops: z.int().min(1).max(8).default(4).describe('Relays that one stream may pass.'),
    maxRelayStreams: count(4096).describe('Relayed sessions at once.'),
  })
  .prefault({})
  .describe('Settings of `mesh-node zone-agent`.');

const limits = z
  .strictObject({
    connections: count(8000).describe('Intercepted connections of one worker; beyond it new ones are reset.'),
    callerPercent: z
      .int()
      .min(1)
      .max(100)
      .default(50)
      .describe('Share of `connections` that one caller (unit, container or user) may have.'),
    acceptBatch: z
      .int()
      .min(1)
      .max(1024)
      .default(64)
      .describe('Connections accepted in one turn of the loop.'),
    keepaliveIdle: duration('30s').describe(
      'TCP keepalive on both legs; under the 60 s CLOSE_WAIT timeout of conntrack.',
    ),
    halfClosedIdle: duration('5m').describe('A half-closed connection without traffic is ended after this.'),
  })
  .prefault({})
  .describe('Bounds of the data plane.');

const daemon = z
  .strictObject({
    user: z
      .string()
      .default('mesh-node')
      .describe('User that the daemon runs as; its own traffic is never intercepted.'),
    workers: z
      .union([z.literal('auto'), z.int().min(1).max(16)])
      .default('auto')
      .describe('Data-plane processes; auto: one up to 4 cores, then one for each 4, at most 4.'),
    stateDirectory: path('/var/lib/mesh-node').describe('What survives a restart.'),
    runtimeDirectory: path('/run/mesh-node').describe('Socket and other things that do not.'),
    drainTimeout: duration('30s', 0).describe('How long live connections may go on after SIGTERM.'),
    upgradeDrainTimeout: duration('1h', 0).describe(
      'How long live connections may go on in the old workers after `mesh-node upgrade`.',
    ),
    orphanTimeout: duration('10s').describe(
      'How long workers whose supervisor died serve on and wait for the next one.',
    ),
    heartbeatInterval: duration('250ms').describe('How often each worker is asked for a sign of life.'),
    suspendTimeout: duration('1s').describe(
      'When no worker has given a sign of life for this long, new connections go direct.',
    ),
    hangTimeout: duration('2s').describe('A worker silent for this long is killed and replaced.'),
  })
  .prefault({})
  .describe('Processes.');

const telemetry = z
  .strictObject({
    logLevel: z
      .enum(['trace', 'debug', 'info', 'warn', 'error'])
      .default('info')
      .describe('Least level that is logged.'),
    accessLog: z
      .union([
        z.literal('stdout'),
        z.literal('off'),
        z.string().regex(/^\//, 'expected stdout, off or an absolute path').meta({ title: 'absolute path' }),
      ])
      .default('stdout')
      .describe('Where one JSON line for each connection goes.'),
    accessLogBuffer: size('4MiB').describe(
      'Most bytes waiting to be written; lines beyond it are dropped and counted.',
    ),
    metricsListen: z
      .union([z.literal('off'), endpoint])
      .default('127.0.0.1:15090')
      .describe('Address of the Prometheus endpoint (GET /metrics, /ready).'),
    flushInterval: duration('1s').describe('How often workers hand their counts to the supervisor.'),
  })
  .prefault({})
  .describe('Log, metrics, access log.');

/** Schema of the whole file. Unknown keys are errors everywhere. */
export const configSchema = z.strictObject({
  node,
  capture,
  names,
  caller,
  guard,
  tunnel,
  identity,
  registries: z
    .array(registry)
    .max(16)
    .prefault([{ type: 'file' }])
    .describe('Where services come from; earlier ones win where two speak of the same service.'),
  cache,
  balance,
  zones: z.array(zone).max(256).default([]).describe('Other zones and how they are reached.'),
  zoneAgent,
  limits,
  daemon,
  telemetry,
});

type DeepReadonly<T> = T extends (infer U)[]
  ? readonly DeepReadonly<U>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** The configuration as the program uses it: complete, checked, frozen; durations in ms, sizes in bytes. */
export type Config = DeepReadonly<z.output<typeof configSchema>>;
/** The configuration as it is written in the file. */
export type ConfigInput = z.input<typeof configSchema>;
export type RegistryConfig = Config['registries'][number];
