import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, it } from 'vitest';
import { type AllowEntry, formatAllowEntry, parseAllowList } from '../../../src/capture/allow-list.ts';
import { parseTable } from '../../../src/capture/live-table.ts';
import { planRules, type RuleInput, renderRules } from '../../../src/capture/rules.ts';

/** A new connection, as a chain sees it. */
interface Packet {
  readonly hook: 'OUTPUT' | 'PREROUTING';
  readonly family: 'ipv4' | 'ipv6';
  readonly destination: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  readonly syn: boolean;
  readonly uid: number;
  readonly local: boolean;
  readonly bridge: string;
  readonly member: boolean;
}

function inNetwork(address: string, network: string): boolean {
  const [base, prefix] = ipaddr.parseCIDR(network);
  const ip = ipaddr.parse(address);
  return ip.kind() === base.kind() && ip.match(base as never, prefix);
}

/** What the kernel does with the options that we use; an option unknown here fails the test. */
const matches: Record<string, (packet: Packet, value: string) => boolean> = {
  '-m': () => true,
  '-p': (packet, value) => packet.protocol === value,
  '-d': (packet, value) => inNetwork(packet.destination, value),
  '-i': (packet, value) => packet.bridge === value,
  '--syn': (packet) => packet.syn,
  '--uid-owner': (packet, value) => packet.hook === 'OUTPUT' && packet.uid === Number(value),
  '--dst-type': (packet) => packet.local,
  '--match-set': (packet) => packet.member && packet.protocol === 'tcp',
  '--dport': (packet, value) => {
    const [first, last = first] = value.split(':').map(Number);
    return packet.port >= first! && packet.port <= last!;
  },
};

/** Walks the rendered text as the kernel would; the port that the packet is redirected to, or undefined. */
function walk(
  table: ReadonlyMap<string, readonly string[]>,
  chain: string,
  packet: Packet,
): number | undefined {
  for (const rule of table.get(chain) ?? []) {
    const tokens = rule.split(' ');
    const target = tokens.indexOf('-j');
    let matched = true;
    for (let at = 0; at < target; at++) {
      const option = tokens[at]!;
      const value = tokens[at + 1]!;
      if (!matches[option]!(packet, value)) matched = false;
      at += option === '--syn' ? 0 : option === '--match-set' ? 2 : 1;
    }
    if (!matched) continue;
    const verdict = tokens[target + 1]!;
    if (verdict === 'RETURN') return undefined;
    if (verdict === 'REDIRECT') return Number(tokens[target + 3]);
    const inner = walk(table, verdict, packet);
    if (inner !== undefined) return inner;
  }
  return undefined;
}

const port = fc.oneof(fc.constantFrom(15001, 15008, 22, 80, 8000), fc.integer({ min: 1, max: 65535 }));
const ipv4 = fc.oneof(
  fc.constantFrom('127.0.0.1', '127.9.9.9', '10.0.0.1', '10.1.2.3', '169.254.169.254'),
  fc.ipV4(),
);
const ipv6 = fc
  .oneof(fc.constantFrom('::1', 'fd00::1', 'fd00::2'), fc.ipV6())
  .filter((ip) => !ip.includes('.'));
const entry = fc
  .tuple(fc.option(fc.oneof(ipv4, ipv6)), fc.integer({ min: 0, max: 128 }), fc.option(fc.tuple(port, port)))
  .map(([ip, length, range]): AllowEntry => {
    const ports = range === null ? undefined : { first: Math.min(...range), last: Math.max(...range) };
    if (ip === null) return { ports: ports ?? { first: 22, last: 22 } };
    const family = ipaddr.parse(ip).kind();
    const prefix = Math.min(length, family === 'ipv4' ? 32 : 128);
    const address = ipaddr[family === 'ipv4' ? 'IPv4' : 'IPv6']
      .networkAddressFromCIDR(`${ip}/${prefix}`)
      .toString();
    return { network: { family, address, prefix }, ...(ports === undefined ? {} : { ports }) };
  });
const input: fc.Arbitrary<RuleInput> = fc.record({
  capture: fc.record({
    mode: fc.constantFrom('services', 'all', 'off'),
    port: fc.constant(15001),
    bridges: fc.subarray(['docker0', 'br-x']),
  }),
  uid: fc.constant(990),
  ports: fc.constant([15008]),
  protected: fc.array(entry, { maxLength: 2 }),
  allowList: fc.array(entry, { maxLength: 6 }),
});
const packet: fc.Arbitrary<Packet> = fc
  .record({
    hook: fc.constantFrom('OUTPUT', 'PREROUTING'),
    destination: fc.oneof(ipv4, ipv6),
    port,
    protocol: fc.constantFrom('tcp', 'tcp', 'tcp', 'udp'),
    syn: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, fc.constant(false)),
    uid: fc.constantFrom(990, 1000, 0),
    local: fc.boolean(),
    bridge: fc.constantFrom('docker0', 'br-x', 'eth0'),
    member: fc.boolean(),
  } as const)
  .map((shape) => ({ ...shape, family: ipaddr.parse(shape.destination).kind() }));

/** What must happen, told a second time without rules. */
function meant(rules: RuleInput, p: Packet): boolean {
  const { mode, bridges } = rules.capture;
  const allowed = [...rules.protected, ...rules.allowList].some(
    ({ network, ports }) =>
      (network === undefined || inNetwork(p.destination, `${network.address}/${network.prefix}`)) &&
      (ports === undefined || (p.port >= ports.first && p.port <= ports.last)),
  );
  if (mode === 'off' || allowed || p.protocol !== 'tcp' || !p.syn) return false;
  if (mode === 'services' && !p.member) return false;
  const ownPort = p.local && (p.port === 15001 || p.port === 15008);
  if (p.hook === 'PREROUTING') return bridges.includes(p.bridge) && !ownPort && !(mode === 'all' && p.local);
  const loopback = inNetwork(p.destination, '127.0.0.0/8') || inNetwork(p.destination, '::1/128');
  return !loopback && p.uid !== 990 && !ownPort;
}

describe('what the rules mean', () => {
  it('is what was meant, for any allow-list, mode and connection', () => {
    let redirected = 0;
    fc.assert(
      fc.property(input, fc.array(packet, { minLength: 1, maxLength: 20 }), (rules, packets) => {
        for (const p of packets) {
          const text = renderRules(planRules(rules, p.family));
          const jumps = text.matchAll(/^-I (\S+) 1 (.*)$/gm);
          const table = new Map(parseTable(text));
          for (const [, chain, rule] of jumps) table.set(chain!, [rule!]);
          const result = walk(table, p.hook, p);
          expect(result).toBe(meant(rules, p) ? 15001 : undefined);
          if (result !== undefined) redirected++;
        }
      }),
      { numRuns: 1000 },
    );
    // The generator must not have proved nothing.
    expect(redirected).toBeGreaterThan(200);
  });

  it('reads back from the allow-list file what it was given', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 10 }), (entries) => {
        const text = entries.map(formatAllowEntry);
        const { entries: read, problems } = parseAllowList(text.join('\n'));
        expect(problems).toEqual([]);
        expect(read.map(formatAllowEntry)).toEqual([...new Set(text)]);
      }),
    );
  });
});
