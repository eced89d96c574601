import { describe, expect, it, test } from 'vitest';
import { answersNames, type DnsRuleInput, dnsFragments } from '../../../../src/capture/rules/dns.ts';

const input: DnsRuleInput = {
  mode: 'services',
  bridges: [],
  names: { domain: 'mesh', port: 15_053, ipv4: '240.0.0.0/4', ipv6: 'off' },
  uid: 990,
};
const question = '-p udp -m udp --dport 53 -m string --hex-string "|046d65736800|" --algo bm --icase';

const plain = (fragments: ReturnType<typeof dnsFragments>) =>
  fragments.map(({ table, chains, jumps }) => ({ table, chains: Object.fromEntries(chains), jumps }));

describe('queries for the domain', () => {
  it('are a flow of their own, and go to the responder; the own user asks whom it always asked', () => {
    expect(plain(dnsFragments(input, 'ipv4'))).toEqual([
      {
        table: 'raw',
        chains: {
          MESH_DNS_ZONE: [
            '-p udp -m udp --sport 15053 -j CT --zone 28005',
            '-o lo -p icmp -m icmp --icmp-type 3/3 -m string --hex-string "|3acd00|" --algo bm --from 50 --to 53 -j CT --zone 28005',
            '-m owner --uid-owner 990 -j RETURN',
            `${question} -j CT --zone 28005`,
          ],
        },
        jumps: [['OUTPUT', 'MESH_DNS_ZONE']],
      },
      {
        table: 'nat',
        chains: {
          MESH_DNS: ['-m owner --uid-owner 990 -j RETURN', `${question} -j REDIRECT --to-ports 15053`],
        },
        jumps: [['OUTPUT', 'MESH_DNS']],
      },
    ]);
  });

  it('come from declared bridges, too', () => {
    const [raw, nat] = plain(dnsFragments({ ...input, bridges: ['docker0', 'br1'] }, 'ipv6'));
    expect(raw?.chains['MESH_DNS_ZPRE']).toEqual([
      `-i docker0 ${question} -j CT --zone 28005`,
      `-i br1 ${question} -j CT --zone 28005`,
    ]);
    expect(nat?.chains['MESH_DNS_PRE']).toEqual([
      `-i docker0 ${question} -j REDIRECT --to-ports 15053`,
      `-i br1 ${question} -j REDIRECT --to-ports 15053`,
    ]);
    expect(raw?.jumps).toContainEqual(['PREROUTING', 'MESH_DNS_ZPRE']);
    expect(nat?.jumps).toContainEqual(['PREROUTING', 'MESH_DNS_PRE']);
  });

  it('that nobody answers are refused at once, over IPv6, too', () => {
    expect(plain(dnsFragments(input, 'ipv6'))[0]?.chains['MESH_DNS_ZONE']?.[1]).toBe(
      '-o lo -p ipv6-icmp -m icmp6 --icmpv6-type 1/4 -m string --hex-string "|3acd00|" --algo bm --from 90 --to 93 -j CT --zone 28005',
    );
  });

  it('end in all labels of the domain', () => {
    const names = { ...input.names, domain: 'svc.example' };
    expect(JSON.stringify(plain(dnsFragments({ ...input, names }, 'ipv6')))).toContain(
      `|03737663${'07'}6578616d706c6500|`,
    );
  });
});

test.each<[DnsRuleInput['mode'], Partial<DnsRuleInput['names']>, boolean]>([
  ['services', {}, true],
  ['all', {}, true],
  ['observe', {}, false],
  ['off', {}, false],
  ['services', { ipv4: 'off', ipv6: 'fd00::/48' }, true],
  ['services', { ipv4: 'off' }, false],
])('mode %s with %o: %s', (mode, names, expected) => {
  const given = { ...input, mode, names: { ...input.names, ...names } };
  expect(answersNames(given)).toBe(expected);
  expect(dnsFragments(given, 'ipv4').length > 0).toBe(expected);
});
