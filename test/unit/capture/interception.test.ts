import { beforeEach, describe, expect, it } from 'vitest';
import type { AllowList } from '../../../src/capture/allow-list.ts';
import type { Command } from '../../../src/capture/command.ts';
import { Interception } from '../../../src/capture/interception.ts';
import { captureConfig, setsOf, wantedOf } from '../../support/wanted.ts';
import { FakeKernel } from './fake-kernel.ts';

const capture = (over: object = {}, names?: object) => captureConfig({ ipv6: 'on', ...over }, names);
const keys = (...texts: string[]): readonly string[] => texts;
const want = (exempt: AllowList = [], redirect: readonly string[] = []) => wantedOf(redirect, exempt);
const numbered = (from: number, to: number): readonly string[] =>
  Array.from({ length: to - from }, (_, i) => `10.0.${(from + i) >> 8}.${(from + i) & 255}:80`);

describe('Interception', () => {
  let kernel: FakeKernel;
  let interception: Interception;
  let logged: string[];
  let clock: number;

  const open = (): Interception => {
    const log = (_fields: object, message: string): void => {
      logged.push(message);
    };
    return new Interception({
      config: capture(),
      uid: 990,
      ports: [15008],
      log: { info: log, warn: log },
      runner: kernel,
      cgroupExists: (path) => path === 'system.slice/a.service',
      now: () => clock,
    });
  };

  beforeEach(() => {
    kernel = new FakeKernel();
    logged = [];
    clock = 0;
    interception = open();
  });

  const members = (): string[] => [...(kernel.sets.get('MESH_DST4')?.members ?? [])];

  it('goes absent → applied → withdrawn → applied → absent, and logs each', async () => {
    await interception.apply(want([], keys('10.0.0.1:80')));
    await interception.withdraw();
    await interception.withdraw();
    await interception.apply(want([], keys('10.0.0.1:80')));
    await interception.remove();
    expect(logged.filter((line) => line.includes('→'))).toEqual([
      'interception: absent → applied',
      'interception: applied → withdrawn',
      'interception: withdrawn → applied',
      'interception: applied → absent',
    ]);
    expect(
      [...kernel.nat.keys(), ...kernel.families.ip6tables.nat.keys(), ...kernel.sets.keys()].filter((n) =>
        n.startsWith('MESH'),
      ),
    ).toEqual([]);
    expect(kernel.nat.get('OUTPUT')).toEqual([]);
  });

  it('runs one program at a time, in the order of the calls', async () => {
    const changes = Array.from({ length: 30 }, (_, i) => interception.apply(want([], numbered(0, i))));
    await Promise.all([...changes, interception.verify(), interception.reassert()]);
    expect(kernel.mostAtOnce).toBe(1);
    expect(members()).toHaveLength(29);
  });

  it('asks for nothing that has not changed', async () => {
    const wanted = want([], keys('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'));
    await interception.apply(wanted);
    const before = kernel.commands.length;
    await interception.apply(wanted);
    expect(kernel.commands).toHaveLength(before);
    await interception.apply({ ...wanted, sets: setsOf({ redirect: ['10.0.0.1:80', '10.0.0.2:80'] }) });
    expect(kernel.commands.slice(before).map(({ input }) => input)).toEqual([
      'del MESH_DST4 10.0.0.3,tcp:80\n',
    ]);
  });

  it('puts rules about control groups in again when the group is another, and leaves out what does not exist', async () => {
    const exempt = (inode: number) => [
      { cgroup: 'system.slice/a.service', inode },
      { cgroup: 'system.slice/gone.service', inode: 3 },
    ];
    const wanted = want([], keys('10.0.0.1:80'));
    const gone = (command: Command) =>
      command.input?.includes('gone.service') ? { stderr: 'iptables-restore: line 9 failed' } : undefined;
    kernel.fail = gone;
    await interception.apply({ ...wanted, exempt: exempt(1) });
    expect(kernel.nat.get('MESH_OUT')).toContain('-m cgroup --path "system.slice/a.service" -j RETURN');
    expect(await interception.verify()).toEqual([]);
    const before = kernel.inputs().length;
    await interception.apply({ ...wanted, exempt: exempt(2) });
    expect(kernel.inputs().slice(before)).toEqual([
      expect.stringMatching(/^\*nat\n:MESH_OUT - \[0:0\]\n[^*]*COMMIT\n$/),
      expect.stringMatching(/^\*nat\n:MESH_OUT - \[0:0\]\n[^*]*COMMIT\n$/),
    ]);
    // What exists when it is asked may be gone when the kernel looks: nothing else falls for it.
    kernel.fail = (command) => (command.input?.includes('cgroup') ? { stderr: 'line 9 failed' } : undefined);
    await interception.apply({ ...want([], keys('10.0.0.1:80', '10.0.0.2:80')), exempt: exempt(3) });
    expect(interception.status().state).toBe('applied');
    expect(kernel.nat.get('MESH_OUT')!.join()).not.toContain('cgroup');
  });

  it('withdrawn and unattended, refusals and routes stand; larger sets stay for a while', async () => {
    await interception.configure(capture({}, { ipv4: '240.0.0.0/4', ipv6: 'off' }));
    await interception.apply({
      ...want(),
      sets: setsOf({ redirect: ['10.0.0.1:80'], strict: ['10.0.0.9:80'] }),
    });
    const filter = kernel.families.iptables.filter;
    const guard = filter.get('MESH_GUARD')!;
    expect(guard.length).toBeGreaterThan(0);
    await interception.withdraw();
    expect(members()).toEqual(['10.0.0.1,tcp:80']);
    expect(await interception.verify()).toEqual([]);
    await interception.leave();
    expect([...kernel.sets.keys()].filter((name) => name.endsWith('4'))).toEqual([
      'MESH_STRICT4',
      'MESH_HOST4',
      'MESH_BESIDE4',
      'MESH_PORT4',
    ]);
    expect(kernel.families.iptables.filter.get('MESH_GUARD')).toEqual(guard);
    expect(kernel.families.iptables.raw.get('OUTPUT')).toEqual([]);
    expect(kernel.routes.get('-4 route')).toEqual(['240.0.0.0/4 dev lo']);
    expect(kernel.nat.get('OUTPUT')).toEqual([]);
    expect(await interception.verify()).toEqual([]);
    kernel.routes.set('-4 route', ['240.9.0.0/16 dev lo scope link']);
    expect(await interception.verify()).toMatchObject([{ kind: 'route-missing' }, { kind: 'leftover' }]);
    expect((await interception.reassert()).action).toBe('restored');
    expect(kernel.routes.get('-4 route')).toEqual(['240.0.0.0/4 dev lo']);
    // Of another version, or of a time when IPv6 was used.
    kernel.routes.set('-6 route', ['fd6d:6573:6800::/48 dev lo metric 1024 pref medium']);
    kernel.sets.set('MESH_OLD4', { options: 'maxelem 7', members: new Set() });
    await interception.remove();
    expect(kernel.routes.get('-6 route')).toEqual([]);
    expect(kernel.routes.get('-4 route')).toEqual([]);
    expect([...kernel.sets.keys()]).toEqual([]);
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
      interception.apply(want([], keys('10.0.0.1:80'))),
      interception.apply(want([], keys('10.0.0.2:80'))),
    ]);
    expect(members()).toEqual(['10.0.0.2,tcp:80']);
    const verifying = Array.from({ length: 64 }, () => interception.verify());
    await expect(interception.apply(want([], keys('10.0.0.3:80')))).rejects.toMatchObject({
      code: 'overload',
    });
    await Promise.all(verifying);
    await interception.apply(want([], keys('10.0.0.4:80')));
    expect(members()).toEqual(['10.0.0.4,tcp:80']);
  });

  it('fills a larger set when the room is over', async () => {
    await interception.apply(want([], numbered(0, 65_536)));
    expect(kernel.sets.get('MESH_DST4')!.options).toContain('maxelem 65536');
    await interception.apply(want([], numbered(0, 65_537)));
    expect(kernel.sets.get('MESH_DST4')!.options).toContain('maxelem 131072');
    expect(members()).toHaveLength(65_537);
    await interception.apply(want([], numbered(1, 65_537)));
    expect(kernel.inputs().at(-1)).toBe('del MESH_DST4 10.0.0.0,tcp:80\n');
  });

  it('fills the set anew when a single change is refused', async () => {
    await interception.apply(want([], keys('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80')));
    kernel.fail = (command) =>
      command.args.includes('-exist') ? { stderr: 'ipset: line 1: no' } : undefined;
    await interception.apply(want([], keys('10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80', '10.0.0.4:80')));
    expect(members()).toHaveLength(4);
    expect(kernel.inputs().at(-1)).toContain('swap MESH_DST4_NEXT MESH_DST4');
  });

  it('tears down a second set that a killed run left behind', async () => {
    await interception.apply(want([], keys('10.0.0.1:80')));
    kernel.sets.set('MESH_DST4_NEXT', { options: 'maxelem 7', members: new Set(['1.1.1.1,tcp:1']) });
    await interception.apply(want([], keys('10.0.0.2:80', '10.0.0.3:80')));
    expect(members()).toEqual(['10.0.0.2,tcp:80', '10.0.0.3,tcp:80']);
    expect(kernel.sets.has('MESH_DST4_NEXT')).toBe(false);
  });

  it('reads again when another tool changes the table in between', async () => {
    await interception.apply(want([], []));
    let times = 0;
    kernel.fail = (command) => {
      if (!command.program.endsWith('nft-restore') || times++ > 0) return undefined;
      kernel.nat.get('OUTPUT')!.unshift('-j OTHER');
      return { stderr: 'iptables-restore: line 3 failed' };
    };
    await interception.apply(want([{ ports: { first: 23, last: 23 } }]));
    expect(kernel.nat.get('OUTPUT')).toEqual(['-j MESH_OUT', '-j OTHER']);
  });

  it('says what the kernel said, with the line it complained of', async () => {
    kernel.fail = (command) =>
      command.program === 'iptables-nft-restore'
        ? { code: 2, stderr: 'iptables-restore v1.8.9 (nf_tables): \nError occurred at line: 7\n' }
        : undefined;
    await expect(interception.apply(want([], []))).rejects.toMatchObject({
      code: 'system',
      source: 'kernel',
      message:
        'iptables-nft-restore --noflush -w 5 ended with 2: iptables-restore v1.8.9 (nf_tables):; Error occurred at line: 7 (line 7: -A MESH_MARK -d 169.254.169.254/32 -j RETURN)',
    });
    expect(interception.status()).toMatchObject({
      state: 'failed',
      lastError: expect.stringContaining('line 7'),
    });
    kernel.fail = () => ({ code: undefined, timedOut: true });
    await expect(interception.verify()).rejects.toThrow(/timed out and was killed/);
    kernel.fail = () => undefined;
    expect(await interception.reassert()).toMatchObject({ action: 'restored' });
    expect(interception.status()).toMatchObject({ state: 'applied', lastError: undefined });
  });

  it('withdraws the other family when one cannot be, and tries again to withdraw, never to apply', async () => {
    await interception.apply(want([], keys('10.0.0.1:80')));
    kernel.fail = (command) => (command.program === 'iptables-nft-restore' ? { stderr: 'no' } : undefined);
    await expect(interception.withdraw()).rejects.toThrow(/no/);
    expect(interception.status().state).toBe('failed');
    expect(kernel.families.ip6tables.nat.has('MESH_OUT')).toBe(false);
    expect(kernel.nat.get('MESH_OUT')).not.toEqual([]);
    expect((await interception.verify()).map(({ kind, subject }) => `${kind} ${subject}`)).toEqual([
      'leftover MESH_CATCH',
      'leftover MESH_TAKE',
      'leftover MESH_DOWN',
      'leftover MESH_OUT',
      'leftover nat OUTPUT',
    ]);
    kernel.fail = () => undefined;
    await interception.reassert();
    expect(interception.status().state).toBe('withdrawn');
    expect(kernel.nat.has('MESH_OUT')).toBe(false);
  });

  it('takes chains and jumps of another version of ours out', async () => {
    kernel.nat.set('MESH_OLD', ['-p tcp -j REDIRECT']);
    kernel.nat.get('INPUT')!.push('-p tcp -j MESH_OLD');
    await interception.apply(want([], []));
    expect(kernel.nat.has('MESH_OLD')).toBe(false);
    expect(kernel.nat.get('INPUT')).toEqual([]);
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
    await interception.apply(want([], []));
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
    await expect(interception.apply(want([], []))).rejects.toMatchObject({ code: 'configuration' });
    await expect(interception.configure(capture({ protect: ['ssh'] }))).rejects.toThrow(/found "ssh"/);
  });

  it('does without a security table that the kernel has not, and uses it while a service is strict', async () => {
    const strict = { ...want(), sets: setsOf({ strict: ['10.0.0.9:80'], ports: [80] }) };
    const chains = (family: 'iptables' | 'ip6tables'): string[] =>
      [...kernel.families[family].security.keys()].filter((chain) => chain.startsWith('MESH_'));
    await interception.apply(strict);
    const all = ['MESH_REFUSE', 'MESH_NEAR', 'MESH_GUARD', 'MESH_IN', 'MESH_FWD'];
    expect([chains('iptables'), chains('ip6tables')]).toEqual([all, all]);
    expect(interception.said?.rules.backstop).toEqual(['ipv4', 'ipv6']);
    // Somebody flushes it: found like everything else.
    kernel.families.iptables.security.get('OUTPUT')!.length = 0;
    expect(await interception.verify()).toMatchObject([{ kind: 'jump-missing', subject: 'security OUTPUT' }]);
    expect((await interception.reassert()).action).toBe('restored');
    await interception.leave();
    expect(chains('iptables')).toEqual(all);
    await interception.apply(want());
    expect([chains('iptables'), chains('ip6tables')]).toEqual([[], []]);
    expect(await interception.verify()).toEqual([]);
    for (const version of ['iptables v1.8.9 (nf_tables)', 'iptables v1.8.9 (legacy)']) {
      kernel = new FakeKernel();
      kernel.version = version;
      kernel.withoutSecurity.add('iptables');
      interception = open();
      await interception.apply(strict);
      expect(interception.status()).toMatchObject({ state: 'applied', backend: { backstop: ['ipv6'] } });
      expect(kernel.families.iptables.filter.get('MESH_GUARD')).toBeDefined();
      expect([chains('iptables'), chains('ip6tables')]).toEqual([[], all]);
      expect(interception.said?.rules.backstop).toEqual(['ipv6']);
      expect(await interception.verify()).toEqual([]);
      await interception.remove();
      expect(interception.status().state).toBe('absent');
    }
  });

  it('leaves IPv6 alone when the host has no nat for it', async () => {
    await interception.configure(capture({ ipv6: 'auto' }));
    kernel.fail = (command) =>
      command.program.startsWith('ip6') ? { code: 3, stderr: 'no table nat' } : undefined;
    await interception.apply(want([], keys('[fd00::1]:80', '10.0.0.1:80')));
    const { backend } = interception.status();
    expect(backend).toMatchObject({ families: ['ipv4'] });
    expect(backend!.withoutIpv6).toBeDefined();
    expect([...kernel.sets.keys()]).toEqual([
      'MESH_STRICT4',
      'MESH_HOST4',
      'MESH_BESIDE4',
      'MESH_PORT4',
      'MESH_DOWN4',
      'MESH_DST4',
    ]);
    expect(await interception.verify()).toEqual([]);
  });
});
