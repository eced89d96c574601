import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, it } from 'vitest';
import { type AllowEntry, formatAllowEntry, parseAllowList } from '../../../src/capture/allow-list.ts';
import { type LiveTables, parseTables } from '../../../src/capture/live-table.ts';
import type { PlannedState, Table } from '../../../src/capture/rules/fragment.ts';
import { NOTHING_SAID, type RuleInput, ruleBase } from '../../../src/capture/rules/input.ts';
import { planRules } from '../../../src/capture/rules/plan.ts';
import { renderRules } from '../../../src/capture/rules/render.ts';
import { captureConfig } from '../../support/wanted.ts';

const DAEMON = 990;
const EXEMPT_USER = 33;
const CHOSEN_USER = 1000;
const PORT = 15001;

/** A packet as chains see it. */
interface Packet {
  /** OUTPUT: a program of this host sends it. PREROUTING: it comes from outside, or from a container. */
  readonly hook: 'OUTPUT' | 'PREROUTING';
  readonly family: 'ipv4' | 'ipv6';
  readonly destination: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  readonly syn: boolean;
  readonly uid: number;
  /** Its destination is an address of this host. */
  readonly local: boolean;
  readonly bridge: string;
  /** Sets that its destination is in. */
  readonly sets: readonly ('DST' | 'DOWN' | 'STRICT' | 'HOST' | 'BESIDE' | 'PORT')[];
  /** Another tool accepts it in the filter table before our jumps are met. */
  readonly shadowed: boolean;
  /** A worker gave a sign of life a moment ago. */
  readonly alive: boolean;
  /** What `-m statistic` draws. */
  readonly draw: number;
}
type Walked = Packet & { mark: boolean };

function inNetwork(address: string, network: string): boolean {
  const [base, prefix] = ipaddr.parseCIDR(network);
  const ip = ipaddr.parse(address);
  return ip.kind() === base.kind() && ip.match(base as never, prefix);
}

const always = () => true;
/** What the kernel does with the options that we use, and how many values each has; an option unknown here fails the test. */
const matches: Record<string, readonly [values: number, match: (packet: Walked, value: string) => boolean]> =
  {
    '-m': [1, always],
    '-p': [1, (packet, value) => packet.protocol === value],
    '-d': [1, (packet, value) => inNetwork(packet.destination, value)],
    '-i': [1, (packet, value) => packet.bridge === value],
    '-o': [1, () => false],
    '--syn': [0, (packet) => packet.syn],
    '--uid-owner': [1, (packet, value) => packet.hook === 'OUTPUT' && packet.uid === Number(value)],
    '--dst-type': [1, (packet) => packet.local],
    '--match-set': [
      2,
      (packet, value) =>
        packet.protocol === 'tcp' && packet.sets.some((set) => value.startsWith(`MESH_${set}`)),
    ],
    '--mark': [1, (packet) => packet.mark],
    '--rcheck': [0, (packet) => packet.alive],
    '--seconds': [1, always],
    '--name': [1, always],
    '--mask': [1, always],
    '--rdest': [0, always],
    '--set': [0, always],
    '--mode': [1, always],
    '--probability': [1, (packet, value) => packet.draw < Number(value)],
    '--sport': [1, () => false],
    '--hex-string': [1, () => false],
    '--algo': [1, always],
    '--icase': [0, always],
    '--dport': [
      1,
      (packet, value) => {
        const [first, last = first] = value.split(':').map(Number);
        return packet.port >= first! && packet.port <= last!;
      },
    ],
  };

type Verdict = 'REDIRECT' | 'REJECT' | 'DROP' | 'ACCEPT';

const verdicts: ReadonlySet<Verdict> = new Set(['REDIRECT', 'REJECT', 'DROP', 'ACCEPT']);

/** True when every option of a rule matches. */
function isFor(tokens: readonly string[], packet: Walked): boolean {
  for (let at = 0; at < tokens.length; at++) {
    const negated = tokens[at] === '!';
    if (negated) at++;
    const [values, match] = matches[tokens[at]!]!;
    if (match(packet, tokens[at + 1]!) === negated) return false;
    at += values;
  }
  return true;
}

/** Walks a chain as the kernel would; undefined when nothing was decided. */
function walk(
  table: ReadonlyMap<string, readonly string[]>,
  chain: string,
  packet: Walked,
): Verdict | undefined {
  for (const rule of table.get(chain) ?? []) {
    const tokens = rule.split(' ');
    const target = tokens.findIndex((token) => token === '-j' || token === '-g');
    if (!isFor(tokens.slice(0, target), packet)) continue;
    const verdict = tokens[target + 1]!;
    if (verdict === 'RETURN') return undefined;
    if (verdict === 'MARK') packet.mark = true;
    else if (verdicts.has(verdict as Verdict)) return verdict as Verdict;
    else {
      const inner = walk(table, verdict, packet);
      if (inner !== undefined || tokens[target] === '-g') return inner;
    }
  }
  return undefined;
}

/** What becomes of a packet on its way through the tables. */
function outcome(tables: LiveTables, packet: Packet): 'redirected' | 'refused' | 'direct' {
  const walked: Walked = { ...packet, mark: false };
  const through = (name: Table, hook: string, p: Walked): Verdict | undefined =>
    walk(tables.get(name) ?? new Map(), hook, p);
  through('mangle', packet.hook, walked);
  const redirected = through('nat', packet.hook, walked) === 'REDIRECT';
  // Datagrams: nobody listens there.
  if (redirected && packet.protocol === 'udp') return 'refused';
  const arrives: Walked = redirected
    ? {
        ...walked,
        sets: [],
        local: true,
        port: PORT,
        destination: walked.family === 'ipv4' ? '127.0.0.1' : '::1',
      }
    : walked;
  const last = packet.hook === 'OUTPUT' ? 'OUTPUT' : arrives.local ? 'INPUT' : 'FORWARD';
  if (!packet.shadowed && through('filter', last, arrives) === 'REJECT') return 'refused';
  if (through('security', last, arrives) === 'DROP') return 'refused';
  return redirected ? 'redirected' : 'direct';
}

const port = fc.oneof(fc.constantFrom(PORT, 15008, 22, 80, 8000), fc.integer({ min: 1, max: 65535 }));
const ipv4 = fc.oneof(
  fc.constantFrom('127.0.0.1', '127.9.9.9', '10.0.0.1', '10.1.2.3', '169.254.169.254', '240.1.2.3'),
  fc.ipV4(),
);
const ipv6 = fc
  .oneof(fc.constantFrom('::1', 'fd00::1', 'fd00::2', 'fd6d:6573:6800::7'), fc.ipV6())
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
const VIRTUAL = { ipv4: '240.0.0.0/4', ipv6: 'fd6d:6573:6800::/48' };
const input: fc.Arbitrary<RuleInput> = fc
  .record({
    capture: fc.record({
      mode: fc.constantFrom('services', 'services', 'services', 'all', 'all', 'observe', 'off'),
      bridges: fc.subarray(['docker0', 'br-x'], { minLength: 1 }),
      percent: fc.constantFrom(100, 100, 100, 100, 50, 0),
      deadAfter: fc.constantFrom('0ms', '1s'),
    }),
    names: fc.constantFrom(VIRTUAL, { ipv4: 'off', ipv6: 'off' }),
    allowed: fc.array(entry, { maxLength: 3 }),
    exemptUser: fc.boolean(),
    backstop: fc.constantFrom<RuleInput['backstop']>([], ['ipv4'], ['ipv4', 'ipv6']),
    only: fc.constantFrom(
      undefined,
      undefined,
      { uids: [], cgroups: [] },
      { uids: [CHOSEN_USER], cgroups: [] },
    ),
  })
  .map(({ capture, names, allowed, exemptUser, only, backstop }) => ({
    ...ruleBase(captureConfig({ ...capture, protect: ['tcp/22'] }, names), DAEMON, [15008]),
    ...NOTHING_SAID,
    exempt: [...allowed, ...(exemptUser ? [{ uid: EXEMPT_USER }] : [])],
    only,
    backstop,
  }));
const packet: fc.Arbitrary<Packet> = fc
  .record({
    hook: fc.constantFrom('OUTPUT', 'PREROUTING'),
    destination: fc.oneof(ipv4, ipv6),
    port,
    protocol: fc.constantFrom('tcp', 'tcp', 'tcp', 'udp'),
    syn: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, fc.constant(false)),
    uid: fc.constantFrom(CHOSEN_USER, CHOSEN_USER, CHOSEN_USER, DAEMON, EXEMPT_USER, 0),
    local: fc.constantFrom(true, false, false),
    bridge: fc.constantFrom('docker0', 'br-x', 'eth0'),
    sets: fc
      .tuple(
        fc.constantFrom(true, true, true, false),
        fc.subarray<'DOWN' | 'STRICT' | 'HOST' | 'BESIDE' | 'PORT'>([
          'DOWN',
          'STRICT',
          'HOST',
          'BESIDE',
          'PORT',
        ]),
      )
      .map(([known, sets]): Packet['sets'] => (known ? ['DST', ...sets] : sets)),
    shadowed: fc.constantFrom(true, false, false, false),
    alive: fc.constantFrom(true, true, true, false),
    draw: fc.double({ min: 0, max: 0.999, noNaN: true }),
  } as const)
  .map((shape) => ({ ...shape, family: ipaddr.parse(shape.destination).kind() }))
  // Sets hold no loopback addresses.
  .map((shape) => (isLoopback(shape.destination) ? { ...shape, sets: [] } : shape));

function isLoopback(ip: string): boolean {
  return inNetwork(ip, '127.0.0.0/8') || inNetwork(ip, '::1/128');
}

/** Is a new connection taken, as the configuration says it? */
function isTaken(rules: RuleInput, state: PlannedState, p: Packet, allowed: boolean): boolean {
  const { mode, bridges, percent, deadAfter } = rules.capture;
  if (state !== 'applied' || (mode !== 'services' && mode !== 'all') || allowed) return false;
  if (mode === 'services' && !p.sets.includes('DST')) return false;
  if ((deadAfter > 0 && !p.alive) || p.draw >= percent / 100) return false;
  const ownPort = p.local && (p.port === PORT || p.port === 15008);
  if (p.hook === 'PREROUTING')
    return rules.only === undefined && bridges.includes(p.bridge) && !ownPort && !(mode === 'all' && p.local);
  const exemptUser = rules.exempt.some((exemption) => 'uid' in exemption && exemption.uid === p.uid);
  const chosen = rules.only === undefined || rules.only.uids.includes(p.uid);
  return !isLoopback(p.destination) && p.uid !== DAEMON && !ownPort && !exemptUser && chosen;
}

/** What must happen, told a second time without rules. */
function meant(rules: RuleInput, state: PlannedState, p: Packet): string {
  const stray = rules.names[p.family] !== 'off' && inNetwork(p.destination, VIRTUAL[p.family]);
  // Packets for this host are not forwarded, whatever their address.
  const datagram =
    p.hook === 'PREROUTING' &&
    p.family === 'ipv6' &&
    p.protocol === 'udp' &&
    rules.capture.bridges.includes(p.bridge);
  const refusable = !p.shadowed && (p.hook === 'OUTPUT' || !p.local);
  const otherwise = stray && (refusable || datagram) ? 'refused' : 'direct';
  if (p.protocol !== 'tcp' || !p.syn) return otherwise;
  const destinations = [...rules.protected, ...rules.exempt].filter((exemption) => !('uid' in exemption));
  const allowed = (destinations as AllowEntry[]).some(
    ({ network, ports }) =>
      (network === undefined || inNetwork(p.destination, `${network.address}/${network.prefix}`)) &&
      (ports === undefined || (p.port >= ports.first && p.port <= ports.last)),
  );
  const held = !p.shadowed || rules.backstop.includes(p.family);
  if (isTaken(rules, state, p, allowed) && !p.sets.includes('DOWN')) return 'redirected';
  if (isTaken(rules, state, p, allowed) && held) return 'refused';
  const has = (set: 'STRICT' | 'HOST' | 'BESIDE' | 'PORT'): boolean => p.sets.includes(set);
  const capturePort = p.local && p.port === PORT;
  const near = p.local && has('PORT') && !has('BESIDE') && p.port !== PORT && p.port !== 15008;
  const closed =
    p.hook === 'OUTPUT'
      ? p.uid !== DAEMON && has('STRICT')
      : has('HOST') || near || (!p.local && has('STRICT'));
  return closed && held && !allowed && !capturePort ? 'refused' : otherwise;
}

/** The tables of a host on which the rules have just been put in. */
function tablesOf(rules: RuleInput, family: Packet['family'], state: PlannedState): LiveTables {
  const text = renderRules(planRules(rules, family, state));
  return parseTables(text.replace(/^-I (\S+) \d+ (.*)$/gm, '-A $1 $2'));
}

describe('what the rules mean', () => {
  it('is what was meant, for any configuration, state and packet', () => {
    const seen: Record<string, number> = { redirected: 0, refused: 0, direct: 0 };
    const states = fc.constantFrom<PlannedState>('applied', 'applied', 'applied', 'withdrawn', 'unattended');
    fc.assert(
      fc.property(
        input,
        states,
        fc.array(packet, { minLength: 10, maxLength: 40 }),
        (rules, state, packets) => {
          const tables = { ipv4: tablesOf(rules, 'ipv4', state), ipv6: tablesOf(rules, 'ipv6', state) };
          for (const p of packets) {
            // The self-test's own address is taken whatever else is.
            if (
              p.destination === '240.0.0.1' ||
              /^fd6d:6573:6800:0?:.*:1$|^fd6d:6573:6800::1$/.test(p.destination)
            )
              continue;
            const result = outcome(tables[p.family], p);
            expect(result, JSON.stringify(p)).toBe(meant(rules, state, p));
            seen[result]!++;
          }
        },
      ),
      { numRuns: 1000 },
    );
    // The generator must not have proved nothing.
    for (const [result, count] of Object.entries(seen)) expect(count, result).toBeGreaterThan(150);
  }, 60_000);

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
