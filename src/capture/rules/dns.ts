import type { Config } from '../../config/schema.ts';
import type { Family } from '../names.ts';
import type { Fragment } from './fragment.ts';

/*
 * Queries for names of the domain go to the agent's DNS responder; every other query goes where it always went, also
 * while the agent hangs.
 *
 *   raw OUTPUT, PREROUTING   MESH_DNS_ZONE: queries for the domain, and what the responder answers, → CT zone
 *   nat OUTPUT               MESH_DNS: the daemon's own user: RETURN; queries for the domain → REDIRECT
 *   nat PREROUTING           MESH_DNS_PRE: the same from a declared bridge
 *
 * nat judges the first packet of a flow only, and resolvers keep one socket for many queries (c-ares, dnsmasq): without
 * a zone of their own, queries for the domain would follow whatever was asked first on that socket. In their zone they
 * are a flow by themselves. No loopback exception: a local stub resolver (127.0.0.53) must not see them either.
 */

const dnsChains = {
  out: 'MESH_DNS',
  pre: 'MESH_DNS_PRE',
  zoneOut: 'MESH_DNS_ZONE',
  zonePre: 'MESH_DNS_ZPRE',
} as const;

/** Conntrack zone of queries that the responder answers ("me" in ASCII); no other tool is known to use it. */
const DNS_ZONE = 0x6d65;

/** All that these rules depend on. */
export interface DnsRuleInput {
  readonly mode: Config['capture']['mode'];
  readonly bridges: readonly string[];
  readonly names: Pick<Config['names'], 'domain' | 'port' | 'ipv4' | 'ipv6'>;
  /** Numeric user id of the daemon. */
  readonly uid: number;
}

/**
 * True when names of services are answered at all: something has to be behind the addresses that they resolve to, so it
 * needs interception and a range of virtual addresses.
 */
export function answersNames(input: Pick<DnsRuleInput, 'mode' | 'names'>): boolean {
  const { ipv4, ipv6 } = input.names;
  return (input.mode === 'services' || input.mode === 'all') && (ipv4 !== 'off' || ipv6 !== 'off');
}

/** The end of a question for a name of the domain, as iptables-save prints it: labels with their lengths, and the root. */
function suffixPattern(domain: string): string {
  const bytes = domain.split('.').flatMap((label) => [label.length, ...Buffer.from(label, 'latin1')]);
  return `"|${Buffer.from([...bytes, 0]).toString('hex')}|"`;
}

/**
 * "Nobody listens" (ICMP port unreachable) about a query that went to the responder: it belongs to the flow of the query,
 * too, or a caller whose agent is gone would wait instead of being refused. The quoted query begins behind the two headers;
 * its port stands two bytes further, and a length below 256 behind it.
 */
function refusal(port: number, family: Family): string {
  const [type, at] =
    family === 'ipv4'
      ? ['-p icmp -m icmp --icmp-type 3/3', 20 + 8 + 20 + 2]
      : ['-p ipv6-icmp -m icmp6 --icmpv6-type 1/4', 40 + 8 + 40 + 2];
  const pattern = `${port.toString(16).padStart(4, '0')}00`;
  return `-o lo ${type} -m string --hex-string "|${pattern}|" --algo bm --from ${at} --to ${at + 3}`;
}

/** What names add to the tables of one family; the same in both states, for as long as the agent runs. */
export function dnsFragments(input: DnsRuleInput, family: Family): readonly Fragment[] {
  if (!answersNames(input)) return [];
  const { names, uid, bridges } = input;
  const question = `-p udp -m udp --dport 53 -m string --hex-string ${suffixPattern(names.domain)} --algo bm --icase`;
  const zone = `-j CT --zone ${DNS_ZONE}`;
  const redirect = `-j REDIRECT --to-ports ${names.port}`;
  const own = `-m owner --uid-owner ${uid} -j RETURN`;
  const bridged = bridges.length > 0;
  return [
    {
      table: 'raw',
      chains: new Map([
        // What the responder sends belongs to the flow of the query, whoever asked.
        [
          dnsChains.zoneOut,
          [
            `-p udp -m udp --sport ${names.port} ${zone}`,
            `${refusal(names.port, family)} ${zone}`,
            own,
            `${question} ${zone}`,
          ],
        ],
        ...(bridged
          ? ([[dnsChains.zonePre, bridges.map((bridge) => `-i ${bridge} ${question} ${zone}`)]] as const)
          : []),
      ]),
      jumps: [
        ['OUTPUT', dnsChains.zoneOut],
        ...(bridged ? ([['PREROUTING', dnsChains.zonePre]] as const) : []),
      ],
    },
    {
      table: 'nat',
      chains: new Map([
        [dnsChains.out, [own, `${question} ${redirect}`]],
        ...(bridged
          ? ([[dnsChains.pre, bridges.map((bridge) => `-i ${bridge} ${question} ${redirect}`)]] as const)
          : []),
      ]),
      jumps: [['OUTPUT', dnsChains.out], ...(bridged ? ([['PREROUTING', dnsChains.pre]] as const) : [])],
    },
  ];
}
