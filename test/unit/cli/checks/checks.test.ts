import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { CommandResult } from '../../../../src/capture/command.ts';
import { accessCheck } from '../../../../src/cli/checks/access.ts';
import type { Check, CheckSubject } from '../../../../src/cli/checks/check.ts';
import { listed, ok, worst } from '../../../../src/cli/checks/check.ts';
import { hostChecks } from '../../../../src/cli/checks/host.ts';
import { interceptionChecks } from '../../../../src/cli/checks/netfilter.ts';
import { networkChecks } from '../../../../src/cli/checks/network.ts';
import { portChecks } from '../../../../src/cli/checks/ports.ts';
import { runChecks, subjectOf } from '../../../../src/cli/checks/run-checks.ts';
import { serviceManagerChecks } from '../../../../src/cli/checks/service-manager.ts';
import { loadConfig } from '../../../../src/config/load.ts';

const directory = mkdtempSync(join(tmpdir(), 'mnck-'));
afterAll(() => rmSync(directory, { recursive: true }));

const said = (stdout: string, code = 0): CommandResult => ({ code, stdout, stderr: '', timedOut: false });

/** A host as a test makes it up: files by path, programs by their command line. */
function subject(
  host: {
    readonly text?: string;
    readonly files?: Readonly<Record<string, string>>;
    readonly runs?: (line: string, input?: string) => CommandResult;
    readonly running?: boolean;
    readonly root?: boolean;
  } = {},
): CheckSubject {
  return {
    config: loadConfig({ text: host.text ?? '' }),
    context: { env: {}, columns: undefined, stdout: () => {}, stderr: () => {} },
    root: host.root ?? true,
    daemon: async () => (host.running === true ? ({ workers: [] } as never) : undefined),
    get: async () => undefined,
    run: async (program, args, input) => host.runs?.([program, ...args].join(' '), input) ?? said('', 127),
    read: async (path) => host.files?.[path],
  };
}

function named(checks: readonly Check[], name: string): Check {
  return checks.find((one) => one.name === name)!;
}

describe('access', () => {
  it.each([
    [{}, ['ok', 'no service has access rules']],
    [{ a: { access: {} } }, ['ok', 'rules of 1 strict services']],
    [{ a: { access: {} }, b: { access: {} } }, ['warn', 'access rules of permissive services: b']],
    [{ b: { routes: [] } }, ['ok', 'no service has access rules']],
  ])('%j', async (services, found) => {
    const answers: Record<string, unknown> = {
      '/v1/policies': { policies: { common: {}, services } },
      '/v1/services': {
        services: [
          { name: 'a', mode: 'strict' },
          { name: 'b', mode: 'permissive' },
        ],
      },
    };
    const get = async <T>(path: string) => answers[path] as T | undefined;
    const { state, detail } = await accessCheck.run({ ...subject(), get });
    expect([state, detail]).toEqual(found);
    expect((await accessCheck.run(subject())).state).toBe('skip');
  });
});

describe('runChecks', () => {
  it('gives results in order; one that hangs or falls is its own failure and no other’s', async () => {
    const checks: Check[] = [
      { name: 'hangs', run: () => new Promise(() => {}) },
      {
        name: 'falls',
        run: async () => {
          throw new Error('EIO');
        },
      },
      { name: 'well', run: async () => ok('well') },
    ];
    const results = await runChecks(checks, subject(), 50);
    expect(results.map(({ name, state, detail }) => [name, state, detail])).toEqual([
      ['hangs', 'fail', 'no answer within 0.05 s'],
      ['falls', 'fail', 'EIO'],
      ['well', 'ok', 'well'],
    ]);
  });

  it('reads what is there, page by page, and waits for no writer of a pipe', async () => {
    const { read } = subjectOf(loadConfig({ text: '' }), {} as never);
    const big = join(directory, 'big');
    writeFileSync(big, 'x'.repeat(200_000));
    execFileSync('mkfifo', [join(directory, 'pipe')]);
    expect((await read(big))?.length).toBe(200_000);
    expect(await read(join(directory, 'pipe'))).toBe('');
    expect(await read(join(directory, 'nothing'))).toBeUndefined();
    expect(await read('/proc/self/limits')).toContain('Max open files');
  });

  it('asks the daemon once for all of them', async () => {
    const own = subjectOf(loadConfig({ text: `daemon: {runtimeDirectory: ${directory}}` }), {} as never);
    expect(own.daemon()).toBe(own.daemon());
    expect(await own.daemon()).toBeUndefined();
  });
});

describe('words', () => {
  it('name the worst, and the first of many', () => {
    const results = [ok('a'), { state: 'warn', detail: 'b' }, { state: 'fail', detail: 'c' }] as const;
    expect(worst(results)?.detail).toBe('c');
    expect(worst(results.slice(0, 2))?.detail).toBe('b');
    expect(worst([ok('a')])).toBeUndefined();
    expect(listed(['a', 'b', 'c'], 2)).toBe('a, b and 1 more');
    expect(listed(['a', 'b'], 2)).toBe('a, b');
  });
});

describe('virtual-addresses', () => {
  const check = named(networkChecks, 'virtual-addresses');
  const local = [
    { dst: 'default', gateway: '10.0.0.254', dev: 'eth0' },
    { type: 'multicast', dst: 'ff00::/8', dev: 'eth0' },
    { type: 'local', dst: '127.0.0.0/8', dev: 'lo' },
  ];
  const look = (routes: readonly object[], running = false, text = '') =>
    check.run(
      subject({
        text,
        running,
        files: { '/proc/net/if_inet6': 'x' },
        runs: (line) => said(line.includes('-4') ? JSON.stringify(routes) : ''),
      }),
    );

  it.each([
    ['240.1.0.0/16', 'fail'],
    ['224.0.0.0/3', 'fail'],
    ['255.0.0.1', 'fail'],
    ['10.0.0.0/8', 'ok'],
    ['0.0.0.0/0', 'ok'],
    ['nonsense', 'ok'],
  ])('with somebody’s route to %s: %s', async (dst, state) => {
    expect((await look([...local, { dst, dev: 'eth0', protocol: 'static' }])).state).toBe(state);
  });

  it('wants its own route while the daemon runs', async () => {
    const missing = await look(local, true, 'names: {ipv6: off}');
    expect(missing).toMatchObject({
      state: 'fail',
      hint: expect.stringContaining('ip -4 route add 240.0.0.0/4'),
    });
    const there = await look(
      [...local, { dst: '240.0.0.0/4', dev: 'lo', protocol: '109' }],
      true,
      'names: {ipv6: off}',
    );
    expect(there.state).toBe('ok');
  });
});

describe('unit', () => {
  const check = named(serviceManagerChecks, 'unit');
  const shown = (over: Readonly<Record<string, string>>): string =>
    Object.entries({
      LoadState: 'loaded',
      ActiveState: 'active',
      SubState: 'running',
      UnitFileState: 'enabled',
      DropInPaths: '',
      LimitNOFILE: '65536',
      NRestarts: '0',
      ...over,
    })
      .map((pair) => `${pair.join('=')}\n`)
      .join('');
  const look = (over: Readonly<Record<string, string>>) =>
    check.run(
      subject({
        files: { '/proc/1/comm': 'systemd\n' },
        runs: (line) => said(line.includes('zone-agent') ? 'LoadState=not-found\n' : shown(over)),
      }),
    );

  it('says how it stands, and what makes it so', async () => {
    expect(await look({})).toMatchObject({
      state: 'ok',
      detail: 'mesh-node.service is active (running), enabled',
    });
    const told = await look({
      DropInPaths: '/etc/systemd/system/mesh-node.service.d/x.conf',
      NRestarts: '3',
    });
    expect(told.detail).toContain(
      'drop-ins /etc/systemd/system/mesh-node.service.d/x.conf; restarted 3 times',
    );
    expect(await look({ ActiveState: 'failed' })).toMatchObject({
      state: 'fail',
      hint: 'journalctl -u mesh-node.service',
    });
    expect(await look({ UnitFileState: 'disabled' })).toMatchObject({ state: 'warn' });
    expect((await look({ LimitNOFILE: '1024' })).hint).toContain('LimitNOFILE=17024');
    expect((await look({ LimitNOFILE: 'infinity' })).state).toBe('ok');
    expect((await look({ LoadState: 'not-found' })).state).toBe('skip');
    expect((await check.run(subject())).state).toBe('skip');
  });
});

describe('port-range', () => {
  const check = named(portChecks, 'port-range');
  const range = '/proc/sys/net/ipv4/ip_local_port_range';
  const reserved = '/proc/sys/net/ipv4/ip_local_reserved_ports';

  it.each([
    ['32768\t60999\n', '', 'ok', ''],
    ['10000\t60999\n', '', 'fail', 'port 15001 and 15008 and 15053'],
    ['10000\t60999\n', '15000-15010', 'fail', 'port 15053'],
    ['10000\t60999\n', '8080,15000-15010,15053\n', 'ok', ''],
  ])('%j with %j reserved: %s', async (values, list, state, text) => {
    const result = await check.run(subject({ files: { [range]: values, [reserved]: list } }));
    expect(result.state).toBe(state);
    expect(result.detail).toContain(text);
  });
});

describe('conntrack', () => {
  const base = '/proc/sys/net/netfilter/nf_conntrack_';
  it.each([
    ['100', 'ok'],
    ['700', 'warn'],
    ['900', 'fail'],
    ['', 'skip'],
  ])('%s of 1000 entries: %s', async (count, state) => {
    const files = count === '' ? {} : { [`${base}count`]: count, [`${base}max`]: '1000' };
    expect((await named(hostChecks, 'conntrack').run(subject({ files }))).state).toBe(state);
  });
});

describe('extensions', () => {
  const check = named(interceptionChecks, 'extensions');
  const without = (match: string, text = '') =>
    check.run(
      subject({
        text,
        runs: (line, input) =>
          said('', line.startsWith('unshare') && input?.includes(match) === true ? 1 : 0),
      }),
    );

  it('names what kernel or iptables lack, and whether it is needed', async () => {
    expect((await without('nothing')).state).toBe('ok');
    expect(await without('--match-set')).toMatchObject({
      state: 'fail',
      detail: expect.stringMatching(/^not to be had: set \(ipv4\)/),
    });
    expect((await without('-j NFLOG')).state).toBe('warn');
    expect((await without('-j NFLOG', 'capture: {mode: observe}')).state).toBe('fail');
    expect((await check.run(subject({ root: false }))).state).toBe('skip');
  });
});

describe('rp-filter', () => {
  const check = named(networkChecks, 'rp-filter');
  const look = (filter: string, mark: string, rules: string) =>
    check.run(
      subject({
        text: 'capture: {bridges: [docker0]}',
        files: {
          '/proc/sys/net/ipv4/conf/all/rp_filter': filter,
          '/proc/sys/net/ipv4/conf/all/src_valid_mark': mark,
          '/proc/sys/net/ipv4/conf/docker0/rp_filter': '0',
          '/proc/sys/net/ipv4/conf/docker0/src_valid_mark': '0',
        },
        runs: () => said(rules),
      }),
    );
  const ours = '109: from all fwmark 0x20000000/0x20000000 lookup 109 proto 109\n';

  it.each([
    ['1', '1', ours, 'warn'],
    ['2', '1', ours, 'ok'],
    ['1', '0', ours, 'ok'],
    ['1', '1', '', 'skip'],
  ])('rp_filter %s, src_valid_mark %s, rules %j: %s', async (filter, mark, rules, state) => {
    expect((await look(filter, mark, rules)).state).toBe(state);
  });
});
