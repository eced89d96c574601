import { z } from 'zod';
import { path, percent, port, serviceName } from '../scalars.ts';
import { duration } from '../units.ts';

/** Which connections are taken from the kernel. */
export const capture = z
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

/** Who is behind them. */
export const caller = z
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

/** When the agent stays out of the way. */
export const guard = z
  .strictObject({
    window: duration('3s').describe('The agent is judged by what it measured within this time.'),
    maxDelay: duration('500ms').describe(
      'A worker whose event loop is later than this, again and again, is overloaded.',
    ),
    maxErrorPercent: percent(50).describe(
      "Share of new connections that fail by the agent's own fault (at least 20 of them) before it withdraws.",
    ),
    maxDescriptorsPercent: percent(90).describe('Descriptors of a worker in use.'),
    maxConntrackPercent: percent(90).describe('Entries of the connection tracking table in use.'),
    returnAfter: duration('10s').describe(
      'New connections are taken again after this long without a reason; doubles when it withdraws again soon.',
    ),
    returnMax: duration('5m').describe('Longest time out.'),
  })
  .prefault({})
  .describe('The agent measures itself, and withdraws before its users notice: new connections go direct.');
