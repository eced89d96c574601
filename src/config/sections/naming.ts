import { z } from 'zod';
import { parseIp } from '../../model/address.ts';
import { parseServiceName } from '../../model/service.ts';
import { name, port } from '../scalars.ts';
import { duration } from '../units.ts';

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

/** What programs resolve. */
export const names = z
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
