import { beforeEach, describe, expect, it } from 'vitest';
import { Interception } from '../../../src/capture/interception.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { EndpointKey } from '../../../src/model/address.ts';
import { FakeKernel } from './fake-kernel.ts';

const capture = (over: object = {}) => configSchema.parse({ capture: { ipv6: 'on', ...over } }).capture;
const keys = (...texts: string[]): EndpointKey[] => texts as EndpointKey[];
const numbered = (from: number, to: number): EndpointKey[] =>
  Array.from(
    { length: to - from },
    (_, i) => `10.0.${(from + i) >> 8}.${(from + i) & 255}:80` as EndpointKey,
  );

describe('Interception', () => {
  let kernel: FakeKernel;
  let interception: Interception;
  let logged: string[];
  let clock: number;

  beforeEach(() => {
    kernel = new FakeKernel();
    logged = [];
    clock = 0;
    const log = (_fields: object, message: string): void => {
      logged.push(message);
    };
    interception = new Interception({
      config: capture(),
      uid: 990,
      ports: [15008],
      log: { info: log, warn: log },
      runner: kernel,
      now: () => clock,
    });
  });

  const members = (): string[] => [...(kernel.sets.get('MESH_DST4')?.members ?? [])];

  it('goes absent → applied → withdrawn → applied → absent, and logs each', async () => {
    await interception.apply([], keys('10.0.0.1:80'));
    await interception.withdraw();
    await interception.withdraw();
    await interception.apply([], keys('10.0.0.1:80'));
    await interception.remove();
    expect(logged.filter((line) => line.includes('→'))).toEqual([
      'interception: absent → applied',
      'interception: applied → withdrawn',
      'interception: withdrawn → applied',
      'interception: applied → absent',
    ]);
    expect(
      [...kernel.tables.iptables.keys(), ...kernel.tables.ip6tables.keys(), ...kernel.sets.keys()].filter(
        (n) => n.startsWith('MESH'),
      ),
    ).toEqual([]);
    expect(kernel.tables.iptables.get('OUTPUT')).toEqual([]);
  });

  it('runs one program at a time, and merges changes that wait', async () => {
    await interception.apply([], keys('10.0.0.1:80'));
    const before = kernel.inputs().length;
    const changes = Array.from({ length: 500 }, (_, i) => interception.setDestinations(numbered(0, i)));
    await Promise.all([
      ...changes,
      interception.verify(),
      interception.reassert(),
      interception.setAllowList([]),
    ]);
    expect(kernel.mostAtOnce).toBe(1);
    expect(members()).toHaveLength(499);
    expect(
      kernel
        .inputs()
        .slice(before)
        .filter((text) => text.includes('MESH_DST4_NEXT 10.')),
    ).toHaveLength(1);
  });

  it('refuses more operations than may wait', async () => {
    const verifying = Array.from({ length: 80 }, () =>
      interception.verify().then(
        () => 'done',
        (e: Error) => e.message,
      ),
    );
    const outcomes = await Promise.all(verifying);
    expect(outcomes.filter((outcome) => outcome === 'done')).toHaveLength(64);
    expect(outcomes.at(-1)).toMatch(/wait already/);
  });

  it('takes the newest value whatever waits, and works again after the queue was full', async () => {
    await Promise.all([
      interception.apply([], keys('10.0.0.1:80')),
      interception.setDestinations(keys('10.0.0.2:80')),
    ]);
    expect(members()).toEqual(['10.0.0.2,tcp:80']);
    const verifying = Array.from({ length: 64 }, () => interception.verify());
    await expect(interception.setDestinations(keys('10.0.0.3:80'))).rejects.toMatchObject({
      code: 'overload',
    });
    await Promise.all(verifying);
    await interception.setDestinations(keys('10.0.0.4:80'));
    expect(members()).toEqual(['10.0.0.4,tcp:80']);
  });

  it('fills a larger set when the room is over', async () => {
    await interception.apply([], numbered(0, 65_536));
    expect(kernel.sets.get('MESH_DST4')!.options).toContain('maxelem 65536');
    await interception.setDestinations(numbered(0, 65_537));
    expect(kernel.sets.get('MESH_DST4')!.options).toContain('maxelem 131072');
    expect(members()).toHaveLength(65_537);
    await interception.setDestinations(numbered(1, 65_537));
    expect(kernel.inputs().at(-1)).toBe('del MESH_DST4 10.0.0.0,tcp:80\n');
  });

  it('fills the set anew when a single change is refused', async () => {
    await interception.apply([], keys('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'));
    kernel.fail = (command) =>
      command.args.includes('-exist') ? { stderr: 'ipset: line 1: no' } : undefined;
    await interception.setDestinations(keys('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80', '10.0.0.4:80'));
    expect(members()).toHaveLength(4);
    expect(kernel.inputs().at(-1)).toContain('swap MESH_DST4_NEXT MESH_DST4');
  });

  it('tears down a second set that a killed run left behind', async () => {
    await interception.apply([], keys('10.0.0.1:80'));
    kernel.sets.set('MESH_DST4_NEXT', { options: 'maxelem 7', members: new Set(['1.1.1.1,tcp:1']) });
    await interception.apply([], keys('10.0.0.2:80', '10.0.0.3:80'));
    expect(members()).toEqual(['10.0.0.2,tcp:80', '10.0.0.3,tcp:80']);
    expect(kernel.sets.has('MESH_DST4_NEXT')).toBe(false);
  });

  it('reads again when another tool changes the table in between', async () => {
    await interception.apply([], []);
    let times = 0;
    kernel.fail = (command) => {
      if (!command.program.endsWith('nft-restore') || times++ > 0) return undefined;
      kernel.tables.iptables.get('OUTPUT')!.unshift('-j OTHER');
      return { stderr: 'iptables-restore: line 3 failed' };
    };
    await interception.setAllowList([{ ports: { first: 22, last: 22 } }]);
    expect(kernel.tables.iptables.get('OUTPUT')).toEqual(['-j MESH_OUT', '-j OTHER']);
  });

  it('says what the kernel said, with the line it complained of', async () => {
    kernel.fail = (command) =>
      command.program === 'iptables-nft-restore'
        ? { code: 2, stderr: 'iptables-restore v1.8.9 (nf_tables): \nError occurred at line: 6\n' }
        : undefined;
    await expect(interception.apply([], [])).rejects.toMatchObject({
      code: 'system',
      source: 'kernel',
      message:
        'iptables-nft-restore --noflush -w 5 ended with 2: iptables-restore v1.8.9 (nf_tables):; Error occurred at line: 6 (line 6: -A MESH_KEEP -m conntrack --ctstate NEW -j RETURN)',
    });
    expect(interception.status()).toMatchObject({
      state: 'failed',
      lastError: expect.stringContaining('line 6'),
    });
    kernel.fail = () => ({ code: undefined, timedOut: true });
    await expect(interception.verify()).rejects.toThrow(/timed out and was killed/);
    kernel.fail = () => undefined;
    expect(await interception.reassert()).toMatchObject({ action: 'restored' });
    expect(interception.status()).toMatchObject({ state: 'applied', lastError: undefined });
  });

  it('withdraws the other family when one cannot be, and tries again to withdraw, never to apply', async () => {
    await interception.apply([], keys('10.0.0.1:80'));
    kernel.fail = (command) => (command.program === 'iptables-nft-restore' ? { stderr: 'no' } : undefined);
    await expect(interception.withdraw()).rejects.toThrow(/no/);
    expect(interception.status().state).toBe('failed');
    expect(kernel.tables.ip6tables.get('MESH_OUT')).toEqual([]);
    expect(kernel.tables.iptables.get('MESH_OUT')).not.toEqual([]);
    expect(await interception.verify()).toMatchObject([
      { kind: 'leftover', subject: 'MESH_CATCH' },
      { kind: 'leftover', subject: 'MESH_OUT' },
    ]);
    kernel.fail = () => undefined;
    await interception.reassert();
    expect(interception.status().state).toBe('withdrawn');
    expect(kernel.tables.iptables.get('MESH_OUT')).toEqual([]);
  });

  it('takes chains and jumps of another version of ours out', async () => {
    kernel.tables.iptables.set('MESH_OLD', ['-p tcp -j REDIRECT']);
    kernel.tables.iptables.get('INPUT')!.push('-p tcp -j MESH_OLD');
    await interception.apply([], []);
    expect(kernel.tables.iptables.has('MESH_OLD')).toBe(false);
    expect(kernel.tables.iptables.get('INPUT')).toEqual([]);
    expect(await interception.verify()).toEqual([]);
  });

  it.each([
    ['iptables v1.8.9 (nf_tables)', 'auto', { kind: 'nft', variant: '-nft' }],
    ['iptables v1.8.7 (legacy)', 'auto', { kind: 'legacy', variant: '-legacy' }],
    ['iptables v1.4.21', 'auto', { kind: 'legacy', variant: '' }],
    ['iptables v1.8.9 (legacy)', 'legacy', { kind: 'legacy', variant: '-legacy' }],
  ] as const)('knows %s under %s', async (version, backend, expected) => {
    kernel.version = version;
    await interception.configure(capture({ backend }));
    await interception.apply([], []);
    expect(interception.status().backend).toMatchObject(expected);
    expect(kernel.commands[0]!.program).toBe(backend === 'auto' ? 'iptables' : `iptables-${backend}`);
    // Looking for the backend never runs the other one.
    const programs = new Set(kernel.commands.slice(1).map((command) => command.program));
    const other = expected.kind === 'nft' ? 'legacy' : 'nft';
    expect([...programs].filter((program) => program.includes(other))).toEqual([]);
  });

  it('refuses a backend that is not what it is called, and entries to protect that are none', async () => {
    kernel.version = 'iptables v1.8.9 (legacy)';
    await interception.configure(capture({ backend: 'nft' }));
    await expect(interception.apply([], [])).rejects.toMatchObject({ code: 'configuration' });
    await expect(interception.configure(capture({ protect: ['ssh'] }))).rejects.toThrow(/found "ssh"/);
  });

  it('leaves IPv6 alone when the host has no nat for it', async () => {
    await interception.configure(capture({ ipv6: 'auto' }));
    kernel.fail = (command) =>
      command.program.startsWith('ip6') ? { code: 3, stderr: 'no table nat' } : undefined;
    await interception.apply([], keys('[fd00::1]:80', '10.0.0.1:80'));
    const { backend } = interception.status();
    expect(backend).toMatchObject({ families: ['ipv4'] });
    expect(backend!.withoutIpv6).toBeDefined();
    expect([...kernel.sets.keys()]).toEqual(['MESH_DST4']);
    expect(await interception.verify()).toEqual([]);
  });
});
