import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type AllowList, isDestination, parseAllowList } from '../../../src/capture/allow-list.ts';
import type { CommandRunner } from '../../../src/capture/command.ts';
import { Interception, type Wanted } from '../../../src/capture/interception.ts';
import { renderAll } from '../../../src/capture/rendered.ts';
import { ruleBase } from '../../../src/capture/rules/input.ts';
import type { Ip } from '../../../src/model/address.ts';
import { captureConfig as capture, setsOf, wantedOf } from '../../support/wanted.ts';
import { type Agent, BRIDGE, buildTopology, DAEMON_UID, type Topology } from './namespace.ts';

const log = { info: () => undefined, warn: () => undefined };
const list = (text: string) => {
  const { entries, problems } = parseAllowList(text);
  expect(problems).toEqual([]);
  return entries.filter(isDestination);
};
const keys = (...texts: string[]): readonly string[] => texts;
/** Exempts a list and redirects the rest of these. */
const want = (exempt: AllowList = [], redirect: readonly string[] = []) => wantedOf(redirect, exempt);

/** What docker leaves in a nat table, with rules in OUTPUT and PREROUTING. */
const FOREIGN = `*nat
:DOCKER - [0:0]
:MYTOOL - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment "of somebody else" -j MYTOOL
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A MYTOOL -d 10.77.0.4/32 -p tcp -m tcp --dport 4444 -j DNAT --to-destination 10.77.0.2:8080
COMMIT
`;

describe.each(['nft', 'legacy'] as const)('interception with iptables-%s', (backend) => {
  let lab: Topology;
  let app: Agent;
  let daemon: Agent;
  let inside: Agent;
  let interception: Interception;
  let fed: { program: string; input: string }[] = [];
  let routed: string[] = [];
  let clock = 0;

  const save = (family: '' | '6' = ''): string =>
    lab.host
      .exec(`ip${family}tables-${backend}-save`, '-t', 'nat')
      .replace(/^#.*\n/gm, '')
      .replace(/\[\d+:\d+\]/g, '[0:0]');
  const foreign = (family: '' | '6' = ''): string =>
    save(family)
      .split('\n')
      .filter((line) => !line.includes('MESH_'))
      .join('\n');
  const sets = (): string => lab.host.exec('ipset', 'list', '-n').trim();
  const flush = (): void => {
    for (const family of ['', '6']) lab.host.exec(`ip${family}tables-${backend}`, '-t', 'nat', '-F');
  };

  beforeAll(async () => {
    lab = buildTopology(backend);
    app = lab.host.agent();
    daemon = lab.host.agent(DAEMON_UID);
    inside = lab.container.agent();
    const server = lab.server.agent(0);
    await daemon.listen('::', 15001, 'captured');
    for (const port of [8080, 8081, 8085, 9000, 22]) await server.listen('::', port, 'direct');
    await lab.host.agent(0).listen('::', 8080, 'own');
  });
  afterAll(() => lab.remove());

  const open = (over: object = {}, runner?: CommandRunner, lockFile?: string): Interception => {
    fed = [];
    routed = [];
    const recording: CommandRunner = {
      run: (command) => {
        if (command.input !== undefined) fed.push({ program: command.program, input: command.input });
        if (command.args[2] === 'add') routed.push(command.args.join(' '));
        return (runner ?? lab.host.runner).run(command);
      },
    };
    interception = new Interception({
      config: capture({ backend, ...over }),
      uid: DAEMON_UID,
      ports: [15008],
      log,
      runner: recording,
      now: () => clock,
      ...(lockFile === undefined ? {} : { lockFile }),
    });
    return interception;
  };
  afterEach(async () => {
    await interception.remove();
    expect(save()).not.toContain('MESH_');
    expect(save('6')).not.toContain('MESH_');
    expect(sets()).toBe('');
    expect(await interception.verify()).toEqual([]);
  });

  it('redirects members of the set only, in mode services, on both families', async () => {
    await open().apply(want(list(''), keys('10.77.0.2:8080', '[fd77::2]:8080', '10.77.0.1:8080')));
    expect(interception.status()).toMatchObject({
      state: 'applied',
      backend: { kind: backend, families: ['ipv4', 'ipv6'] },
      destinations: { ipv4: 2, ipv6: 1 },
    });
    expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
    expect(await app.probe('fd77::2', 8080)).toBe('captured');
    expect(await app.probe('10.77.0.2', 8081)).toBe('direct');
    expect(await app.probe('10.77.0.3', 8080)).toBe('direct');
    expect(await app.probe('fd77::3', 8080)).toBe('direct');
    // The daemon itself is never taken.
    expect(await daemon.probe('10.77.0.2', 8080)).toBe('direct');
    expect(await daemon.probe('fd77::2', 8080)).toBe('direct');
    // An address of the host itself that a service declares, but never loopback.
    expect(await app.probe('10.77.0.1', 8080)).toBe('captured');
    expect(await app.probe('127.0.0.1', 8080)).toBe('own');
    expect(await app.probe('::1', 8080)).toBe('own');
    expect(await interception.verify({ members: true })).toEqual([]);
  });

  it('follows destinations by single changes and by swap', async () => {
    await open().apply(want(list(''), keys('10.77.0.2:8080')));
    fed = [];
    await interception.apply(
      want([], keys('10.77.0.2:8080', '10.77.0.3:8080', '10.77.0.3:8081', '10.77.0.4:8080')),
    );
    expect(fed.some((run) => run.input.includes('swap'))).toBe(true);
    expect(await app.probe('10.77.0.3', 8080)).toBe('captured');
    fed = [];
    await interception.apply(
      want([], keys('10.77.0.2:8080', '10.77.0.3:8081', '10.77.0.4:8080', '[fd77::2]:8080')),
    );
    expect(fed.map((run) => run.input)).toEqual([
      'del MESH_DST4 10.77.0.3,tcp:8080\n',
      'add MESH_DST6 fd77::2,tcp:8080\n',
    ]);
    expect(await app.probe('10.77.0.3', 8080)).toBe('direct');
    expect(await app.probe('fd77::2', 8080)).toBe('captured');
    expect(await interception.verify({ members: true })).toEqual([]);
  });

  it('gives the allow-list the last word, in both modes', async () => {
    const entries = '10.77.0.3\nfd77::3\n10.77.0.2:8081\n10.77.0.0/30:8085-8086\n[fd77::2]:9000\ntcp/9000\n';
    for (const mode of ['all', 'services']) {
      const every = [8080, 8081, 8085, 9000, 22].flatMap((port) =>
        ['10.77.0.2', '10.77.0.3', '[fd77::2]', '[fd77::3]'].map((ip) => `${ip}:${port}`),
      );
      await open({ mode }).apply(want(list(entries), keys(...every)));
      const seen: string[] = [];
      for (const host of ['10.77.0.2', '10.77.0.3', 'fd77::2', 'fd77::3']) {
        for (const port of [8080, 8081, 8085, 9000, 22]) {
          if ((await app.probe(host, port)) === 'captured') seen.push(`${host} ${port}`);
        }
      }
      expect(seen).toEqual(['10.77.0.2 8080', 'fd77::2 8080', 'fd77::2 8081', 'fd77::2 8085']);
      await interception.apply(want(list('10.77.0.0/16'), keys(...every)));
      expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
      expect(await app.probe('fd77::3', 8080)).toBe('captured');
      expect(await interception.verify()).toEqual([]);
      await interception.remove();
    }
  });

  it('takes containers in PREROUTING by bridge, in both modes', async () => {
    await open({ bridges: [BRIDGE] }).apply(
      want(list('10.77.0.3:8081'), keys('10.77.0.2:8080', '[fd77::2]:8080')),
    );
    expect(await inside.probe('10.77.0.2', 8080)).toBe('captured');
    expect(await inside.probe('fd77::2', 8080)).toBe('captured');
    expect(await inside.probe('10.77.0.2', 8081)).toBe('direct');
    await interception.configure(capture({ backend, bridges: [BRIDGE], mode: 'all' }));
    await interception.apply(want(list('10.77.0.3:8081'), []));
    expect(sets()).not.toContain('MESH_DST');
    expect(await inside.probe('10.77.0.2', 8081)).toBe('captured');
    expect(await inside.probe('fd77::3', 8081)).toBe('captured');
    expect(await inside.probe('10.77.0.3', 8081)).toBe('direct');
    expect(await inside.probe('10.78.0.1', 8080)).toBe('own');
    await interception.configure(capture({ backend, mode: 'all' }));
    await interception.apply(want([], []));
    expect(save()).not.toContain('-A PREROUTING -j MESH');
    expect(await inside.probe('10.77.0.2', 8081)).toBe('direct');
  });

  it('is idempotent: a second apply leaves the very same table', async () => {
    await open({ bridges: [BRIDGE] }).apply(want(list('10.0.0.0/8'), keys('10.77.0.2:8080')));
    const before = [save(), save('6')];
    await interception.apply(want(list('10.0.0.0/8'), keys('10.77.0.2:8080')));
    expect([save(), save('6')]).toEqual(before);
    // So does another process, which knows nothing of the first.
    await open({ bridges: [BRIDGE] }).apply(want(list('10.0.0.0/8'), keys('10.77.0.2:8080')));
    expect([save(), save('6')]).toEqual(before);
  });

  it('feeds byte for byte what rules print shows', async () => {
    const config = capture(
      { backend, bridges: [BRIDGE], deadAfter: '1s', percent: 33 },
      { ipv4: '240.0.0.0/4', ipv6: 'fd6d:6573:6800::/48' },
    );
    const target = (ip: string, port: number) => ({ ip: ip as Ip, port });
    const wanted: Wanted = {
      ...wantedOf([], list('10.0.0.0/8\ntcp/9000')),
      sets: setsOf({
        redirect: ['10.77.0.2:8080', '[fd77::2]:8080'],
        strict: ['10.77.0.3:1'],
        hosted: ['[fd77::1]:1'],
        down: ['10.77.0.4:1'],
      }),
      only: { uids: [7], cgroups: [] },
      transparent: true,
      fallback: [
        { virtual: '240.0.0.7' as Ip, port: 80, targets: [target('10.77.0.2', 80), target('10.77.0.3', 80)] },
        { virtual: 'fd6d:6573:6800::7' as Ip, port: 80, targets: [target('fd77::2', 80)] },
      ],
    };
    const printed = renderAll({ ...ruleBase(config, DAEMON_UID, [15008]), ...wanted }, wanted.sets);
    open();
    await interception.configure(config);
    await interception.apply(wanted);
    expect(fed.map((run) => run.input)).toEqual([
      ...printed.map((p) => p.sets),
      ...printed.map((p) => p.rules),
    ]);
    expect(routed).toEqual(printed.flatMap((p) => p.routes));
    // Whatever order the kernel prints the options in, it is read back as what was meant.
    expect(await interception.verify({ members: true })).toEqual([]);
  });

  it('keeps connections through apply, second apply, withdraw, and remove beside other NAT rules', async () => {
    expect(await app.hold(`early-${backend}`, '10.77.0.2', 8080)).toBe('direct');
    await open().apply(want([], keys('10.77.0.2:8080', '[fd77::2]:8080')));
    expect(await app.talk(`early-${backend}`)).toBe('still-here');
    expect(await app.hold(`live4-${backend}`, '10.77.0.2', 8080)).toBe('captured');
    expect(await app.hold(`live6-${backend}`, 'fd77::2', 8080)).toBe('captured');
    const alive = async (): Promise<void> => {
      for (const id of ['early', 'live4', 'live6'])
        expect(await app.talk(`${id}-${backend}`)).toBe('still-here');
    };
    await interception.apply(want(list('tcp/1'), keys('10.77.0.2:8080', '[fd77::2]:8080')));
    await alive();
    await interception.withdraw();
    expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
    expect(await interception.verify()).toEqual([]);
    await alive();
    await interception.apply(want([], keys('10.77.0.2:8080', '[fd77::2]:8080')));
    expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
    await alive();
    for (const family of ['', '6']) {
      lab.host.exec(
        `ip${family}tables-${backend}`,
        '-t',
        'nat',
        '-A',
        'POSTROUTING',
        '-o',
        'none0',
        '-j',
        'MASQUERADE',
      );
    }
    await interception.withdraw();
    await interception.remove();
    await alive();
    flush();
  });

  it('never touches rules of others, and stands before them', async () => {
    const restore = await lab.host.runner.run({
      program: `iptables-${backend}-restore`,
      args: ['--noflush'],
      input: FOREIGN,
      timeoutMs: 20_000,
    });
    expect(restore.code).toBe(0);
    const before = foreign();
    expect(await app.probe('10.77.0.4', 4444)).toBe('direct');
    await open({ bridges: [BRIDGE] }).apply(want([], keys('10.77.0.2:8080', '10.77.0.4:4444')));
    expect(foreign()).toBe(before);
    expect(await app.probe('10.77.0.4', 4444)).toBe('captured');
    // Another tool puts itself first, and ours is doubled.
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-I', 'OUTPUT', '1', '-j', 'MYTOOL');
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-A', 'OUTPUT', '-j', 'MESH_OUT');
    expect((await interception.verify()).map((finding) => finding.kind)).toEqual([
      'jump-duplicated',
      'jump-misplaced',
    ]);
    expect(await interception.reassert()).toMatchObject({ action: 'restored' });
    expect(await interception.verify()).toEqual([]);
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-D', 'OUTPUT', '-j', 'MYTOOL');
    expect(foreign()).toBe(before);
    await interception.withdraw();
    expect(foreign()).toBe(before);
    await interception.remove();
    expect(save()).toBe(before);
    flush();
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-X');
  });

  it('puts back what was flushed, and stays out after three flushes within a minute', async () => {
    clock = 0;
    await open().apply(want([], keys('10.77.0.2:8080')));
    expect(await interception.reassert()).toEqual({ findings: [], action: 'none' });
    for (const at of [0, 70_000, 100_000]) {
      clock = at;
      flush();
      expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
      expect((await interception.reassert()).action).toBe('restored');
      expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
    }
    clock = 110_000;
    flush();
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-X');
    expect((await interception.reassert()).action).toBe('stayed-out');
    expect(interception.status().state).toBe('withdrawn-by-operator');
    expect((await interception.reassert()).action).toBe('none');
    expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
    expect(await interception.verify()).toEqual([]);
    await interception.apply(want([], keys('10.77.0.2:8080')));
    expect(interception.status().state).toBe('applied');
    expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
  });

  it('names every change by others, and mends sets', async () => {
    await open().apply(want([], keys('10.77.0.2:8080', '10.77.0.2:8081')));
    lab.host.exec('ipset', 'del', 'MESH_DST4', '10.77.0.2,tcp:8080');
    expect(await interception.verify()).toMatchObject([
      { kind: 'set-changed', family: 'ipv4', subject: 'MESH_DST4' },
    ]);
    lab.host.exec('ipset', 'add', 'MESH_DST4', '10.77.0.9,tcp:1');
    expect(await interception.verify()).toEqual([]);
    expect(await interception.verify({ members: true })).toMatchObject([{ kind: 'set-changed' }]);
    lab.host.exec('ipset', 'flush', 'MESH_DST4');
    expect((await interception.reassert()).action).toBe('restored');
    expect(await interception.verify({ members: true })).toEqual([]);
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-I', 'MESH_CATCH', '-d', '10.77.0.2', '-j', 'RETURN');
    lab.host.exec(`iptables-${backend}`, '-t', 'nat', '-N', 'MESH_FUTURE');
    expect((await interception.verify()).map((f) => `${f.kind} ${f.subject}`)).toEqual([
      'chain-changed MESH_CATCH',
      'leftover MESH_FUTURE',
    ]);
  });

  it('empties what stands when the mode becomes off, and reports what the kernel refuses', async () => {
    await open().apply(want([], keys('10.77.0.2:8080')));
    await interception.configure(capture({ backend, mode: 'off' }));
    await interception.apply(want([], []));
    expect(interception.status().state).toBe('withdrawn');
    expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
    await interception.configure(capture({ backend }));
    lab.host.exec('ipset', 'create', 'MESH_DST4', 'list:set');
    await expect(interception.apply(want([], keys('10.77.0.2:8080')))).rejects.toThrow(
      /ipset restore .*line \d+: swap/,
    );
    expect(interception.status()).toMatchObject({ state: 'failed' });
  });

  it('takes 20,000 destinations and swaps them without a gap', async () => {
    const many = Array.from({ length: 20_000 }, (_, i) => `10.88.${i >> 8}.${i & 255}:8080`);
    await open().apply(want([], keys('10.77.0.2:8080', ...many)));
    expect(await interception.verify({ members: true })).toEqual([]);
    let done = false;
    const seen = new Set<string>();
    const watch = (async () => {
      while (!done) seen.add(await app.probe('10.77.0.2', 8080));
    })();
    for (const port of [8081, 8082, 8083]) {
      await interception.apply(
        want([], keys('10.77.0.2:8080', ...many.map((key) => key.replace('8080', `${port}`)))),
      );
      expect(fed.at(-1)!.input).toContain('swap');
    }
    done = true;
    await watch;
    expect([...seen]).toEqual(['captured']);
    expect(interception.status().destinations.ipv4).toBe(20_001);
  });

  it('needs no root: CAP_NET_ADMIN and CAP_NET_RAW are enough', async () => {
    const caps = '+net_admin,+net_raw';
    const wrap = [
      'setpriv',
      `--reuid=${DAEMON_UID}`,
      `--regid=${DAEMON_UID}`,
      '--clear-groups',
      `--inh-caps=-all,${caps}`,
      `--ambient-caps=-all,${caps}`,
      `--bounding-set=-all,${caps}`,
    ];
    const lock = join(mkdtempSync(join(tmpdir(), 'mncap-')), 'xtables.lock');
    chmodSync(dirname(lock), 0o777);
    await open({}, lab.host.runnerWith(wrap), lock).apply(want([], keys('10.77.0.2:8080', '[fd77::2]:8080')));
    expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
    expect(await app.probe('fd77::2', 8080)).toBe('captured');
    expect(await interception.verify({ members: true })).toEqual([]);
    // Another process, such as the command line, compares with the same and finds the same.
    const beside = open({}, lab.host.runnerWith(wrap), lock);
    expect(await beside.compare(want([], keys('10.77.0.2:8080', '[fd77::2]:8080')))).toEqual([]);
    expect(await beside.compare(want(list('tcp/9'), keys('10.77.0.2:8080')))).toMatchObject([
      ...['ipv4', 'ipv6'].flatMap((family) =>
        ['MESH_MARK', 'MESH_CATCH', 'MESH_REFUSE'].map((subject) => ({
          kind: 'chain-changed',
          family,
          subject,
        })),
      ),
      { kind: 'set-changed', family: 'ipv6', subject: 'MESH_DST6' },
    ]);
    expect(beside.status().state).toBe('absent');
    await beside.remove();
    rmSync(dirname(lock), { recursive: true });
  });
});
