import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, it } from 'vitest';
import { SetPlanner } from '../../../src/capture/capture-plan.ts';
import { renderFallback } from '../../../src/capture/fallback-text.ts';
import type { Backend } from '../../../src/capture/netfilter.ts';
import { FallbackPlanner } from '../../../src/capture/rules/fallback.ts';
import { NOTHING_SAID, ruleBase } from '../../../src/capture/rules/input.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { type Ip, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';

/* What systemd/withdraw-rules takes of the files that the agent's user can write (systemd/unattended-rules.awk). */

const AWK = fileURLToPath(new URL('../../../systemd/unattended-rules.awk', import.meta.url));
const VIRTUAL = { ipv4: '240.0.0.0/4', ipv6: 'fd6d:6573:6800::/48' } as const;

function taken(kind: 'rules' | 'sets', text: string, virtual: string = VIRTUAL.ipv4) {
  const variables = ['-v', `kind=${kind}`, '-v', 'name=file', '-v', `virtual=${virtual}`];
  const { status, stdout, stderr } = spawnSync('awk', [...variables, '-f', AWK], {
    input: text,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return { status, stdout, stderr };
}

const wrapped = (...lines: readonly string[]): string =>
  `# backend nft\n*nat\n:MESH_X - [0:0]\n${lines.map((line) => `${line}\n`).join('')}COMMIT\n# end\n`;

describe('rules', () => {
  const services = (count: number, off: boolean): Service[] =>
    Array.from({ length: count }, (_, at) => ({
      name: `s${at}` as ServiceName,
      protocol: 'tcp',
      mode: at % 3 === 2 ? 'strict' : 'permissive',
      interchangeable: false,
      balance: 'round-robin',
      hosts: [],
      addresses: [],
      virtual: [
        `240.0.${at >> 8}.${at & 255}`,
        ...(off ? [] : [`fd6d:6573:6800::${(at + 1).toString(16)}`]),
      ] as Ip[],
      instances: ['10.0.0.1:80', '10.0.0.2:80', '[fd00::1]:80'].map((address) => ({
        id: address as InstanceId,
        address: parseEndpoint(address)!,
        node: 'a' as NodeName,
        zone: 'z',
        labels: {},
        weight: 100,
        draining: false,
      })),
    }));

  it('takes every file that the agent writes, as it is', () => {
    const network = fc.constantFrom<string | undefined>(
      undefined,
      '10.0.0.0/8',
      '192.0.2.7',
      'fd00::/8',
      '::1',
    );
    const allowed = fc.array(
      fc.tuple(network, fc.constantFrom('', '22', '6000-6100')).map(([ip, ports]) => {
        if (ip === undefined) return `tcp/${ports || '25'}`;
        return ports === '' ? ip : ip.includes(':') ? `[${ip}]:${ports}` : `${ip}:${ports}`;
      }),
      { maxLength: 4 },
    );
    const shape = fc.record({
      count: fc.constantFrom(0, 1, 3, 200),
      protect: allowed,
      bridges: fc.subarray(['docker0', 'br-5f_3.x'], { minLength: 0 }),
      mode: fc.constantFrom('services', 'all', 'observe', 'off'),
      transparent: fc.boolean(),
      backstop: fc.subarray(['ipv4', 'ipv6'] as const),
      variant: fc.constantFrom<Backend['variant']>('-nft', '-legacy', ''),
      off: fc.boolean(),
    });
    fc.assert(
      fc.property(shape, ({ count, protect, bridges, mode, transparent, backstop, variant, off }) => {
        const names = off ? { ipv6: 'off' } : {};
        const text = JSON.stringify({ node: { name: 'a' }, capture: { protect, bridges, mode }, names });
        const config = loadConfig({ text });
        const delta = { base: 0, removedServices: [], nodes: [], removedNodes: [] };
        const snapshot = applyDelta(emptySnapshot, { ...delta, services: services(count, off) });
        const fallback = new FallbackPlanner({ node: 'a', zone: 'z', otherZones: [] });
        fallback.update(snapshot);
        const sets = new SetPlanner({ node: 'a', services: [] }).update(snapshot);
        const rules = {
          ...ruleBase(config, 990, [15008]),
          ...NOTHING_SAID,
          ...{ fallback: fallback.entries, transparent, backstop },
        };
        const kind = variant === '-legacy' ? 'legacy' : 'nft';
        const backend: Backend = {
          ...{ kind, variant, version: '', families: ['ipv4', 'ipv6'], withoutIpv6: undefined, backstop },
        };
        const texts = renderFallback({ rules, sets, backend, snapshot });
        for (const family of ['ipv4', 'ipv6'] as const) {
          const written = texts[`rules-${family}`];
          if (written === undefined) continue;
          expect(taken('rules', written, config.names[family])).toEqual({
            status: 0,
            stdout: written.replace(/# end\n$/, ''),
            stderr: '',
          });
        }
        const written = texts.sets?.replace(/# end\n$/, '');
        if (written !== undefined) expect(taken('sets', `=plan\n${texts.sets}`).stdout).toBe(written);
      }),
      { numRuns: 40 },
    );
  }, 60_000);

  it.each([
    '-A MESH_X --modprobe=/tmp/x -j RETURN',
    '-A MESH_X --modprobe /tmp/x -j RETURN',
    '-A MESH_X --modp=/tmp/x -j RETURN',
    '-A MESH_X -M /tmp/x -j RETURN',
    '-A MESH_X -M/tmp/x -j RETURN',
    '-A MESH_X -j RETURN -t filter',
    '-A MESH_X -d db.example.com -j RETURN',
    '-A MESH_X -d dead.beef -j RETURN',
    '-A MESH_X -d 10.0.0.256 -j RETURN',
    '-A MESH_X -d 10.0.0.0/33 -j RETURN',
    '-A MESH_X -d 10.0.0.1,10.0.0.2 -j RETURN',
    '-A MESH_X -s 10.0.0.1 -j RETURN',
    '-A MESH_X -d',
    '-A MESH_X -p tcp -m tcp --dport http -j RETURN',
    '-A MESH_X -m owner --uid-owner root -j RETURN',
    '-A MESH_X -m set --match-set OTHER dst,dst -j RETURN',
    '-A MESH_X -m bpf --object-pinned /x -j RETURN',
    '-A MESH_X -m mark --mark 0x1/0x1 -j RETURN',
    '-A MESH_X -j MARK --set-xmark 0xffffffff/0xffffffff',
    '-A MESH_X -j ACCEPT',
    '-A MESH_X -j LOG',
    '-A MESH_X -j OTHER',
    '-A MESH_X -g OTHER',
    '-A MESH_X "-j" ACCEPT',
    '-A OUTPUT -j MESH_X',
    '-I OUTPUT 1 -j ACCEPT',
    '-I OUTPUT 1 -j MESH_X -j ACCEPT',
    '-D OUTPUT 1',
    '-F OUTPUT',
    '-P OUTPUT DROP',
    ':OUTPUT DROP [0:0]',
    '*broute',
    '# a comment',
    '',
    '\t-A MESH_X -j RETURN',
  ])('refuses the whole file for %j', (line) => {
    expect(taken('rules', wrapped('-A MESH_X -j RETURN', line))).toEqual({
      status: 1,
      stdout: '',
      stderr: `mesh-node: file:5: not a line that the agent writes: ${line}\n`,
    });
  });

  it('refuses what was not written to its end, and what comes after it', () => {
    const text = wrapped('-A MESH_X -j RETURN');
    expect(taken('rules', text).status).toBe(0);
    expect(taken('rules', text.replace('# end\n', ''))).toMatchObject({ status: 1, stdout: '' });
    expect(taken('rules', `${text}*nat\n# end\n`)).toMatchObject({ status: 1, stdout: '' });
    expect(taken('rules', text.replace('# backend nft\n', ''))).toMatchObject({ status: 1, stdout: '' });
    expect(taken('rules', '')).toMatchObject({ status: 1, stdout: '' });
  });

  it('lets only virtual addresses be led elsewhere', () => {
    const leads = (match: string, target = 'DNAT --to-destination 10.0.0.1:80'): string =>
      `-A MESH_X ${match}${match === '' ? '' : ' '}-j ${target}`;
    const good = [leads('-d 240.0.0.1/32'), leads('-d 240.0.0.0/4', 'REDIRECT --to-ports 1')];
    const outside = [
      leads(''),
      leads('-d 10.0.0.1/32'),
      leads('! -d 240.0.0.1/32'),
      leads('-d 224.0.0.0/3'),
      leads('-d 0.0.0.0/0', 'REDIRECT --to-ports 1'),
      leads('-d fd6d:6573:6800::1/128'),
    ];
    const { status, stdout, stderr } = taken('rules', wrapped(...good, ...outside));
    expect(status).toBe(2);
    expect(stdout).toBe(wrapped(...good).replace('# end\n', ''));
    expect(stderr).toContain(`left out ${outside.length} rules`);
    expect(taken('rules', wrapped(...good), 'off').stdout).toBe(wrapped().replace('# end\n', ''));
  });

  it('knows what lies in a network', () => {
    const virtual = fc.oneof(
      fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 24 })),
      fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 96 })),
    );
    const address = fc.oneof(fc.ipV4(), fc.ipV6());
    fc.assert(
      fc.property(virtual, fc.array(address, { minLength: 50, maxLength: 100 }), ([base, prefix], random) => {
        const outer = ipaddr.parse(base);
        // Dotted endings are not written by the agent: its addresses are canonical.
        const canonical = [base, ...random].map((ip) => ipaddr.parse(ip).toString());
        const near = canonical.flatMap((ip) => {
          const bytes = ipaddr.parse(ip).toByteArray();
          if (bytes.length !== outer.toByteArray().length) return [ip];
          // Of the network as far as its prefix goes, and then with one bit turned, which may lie in or out.
          const mixed = outer.toByteArray().map((byte, at) => (at * 8 + 8 <= prefix ? byte : bytes[at]!));
          const turned = mixed.map((byte, at) => (at === prefix >> 3 ? byte ^ 0x40 : byte));
          return [ip, ...[mixed, turned].map((parts) => ipaddr.fromByteArray(parts).toString())];
        });
        const lines = near.map((ip) => `-A MESH_X -d ${ip} -j REDIRECT --to-ports 1`);
        const expected = near.flatMap((ip, at) => {
          const parsed = ipaddr.parse(ip);
          return parsed.kind() === outer.kind() && parsed.match(outer, prefix) ? [lines[at]] : [];
        });
        const { stdout } = taken('rules', wrapped(...lines), `${canonical[0]}/${prefix}`);
        expect(stdout.split('\n').filter((line) => line.startsWith('-A'))).toEqual(expected);
      }),
      { numRuns: 20 },
    );
  }, 60_000);
});

describe('sets', () => {
  it('takes members of our form, of sets that are not there', () => {
    const good = [
      'create MESH_STRICT4 hash:ip,port family inet hashsize 1024 maxelem 65536',
      'add MESH_STRICT4 10.0.0.1,tcp:80',
      'add MESH_STRICT6 fd00::1,tcp:80',
      'create MESH_PORT4 bitmap:port range 0-65535',
      'add MESH_PORT4 80',
    ];
    const bad = [
      'create OTHER hash:ip,port family inet hashsize 1024 maxelem 65536',
      'create MESH_X list:set size 8',
      'add MESH_STRICT4 db.example.com,tcp:80',
      'add MESH_STRICT4 dead.beef,tcp:80',
      'add MESH_STRICT4 10.0.0.1,tcp:80 timeout 1',
      'add MESH_STRICT4 10.0.0.0/8,tcp:80',
      'add MESH_LIVE4 10.0.0.1,tcp:80',
      'flush OTHER',
      'destroy MESH_STRICT4',
      '# end',
    ];
    const { stdout } = taken('sets', `OTHER\nMESH_LIVE4\n=plan\n${[...good, ...bad].join('\n')}\n`);
    expect(stdout).toBe(`${good.join('\n')}\n`);
  });
});
