import { execFile } from 'node:child_process';
import { mkdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Interception } from '../../../src/capture/interception.ts';
import { cgroupMount } from '../../../src/capture/unit-cgroups.ts';
import type { Ip } from '../../../src/model/address.ts';
import { waitFor } from '../../support/process.ts';
import { setsOf, wantedOf } from '../../support/wanted.ts';
import { type Agent, BRIDGE, type Topology } from './namespace.ts';
import { CAPTURE, OTHER_UID, RulesLab } from './rules-lab.ts';

/*
 * What holds in which state, for whom: services that nobody answers for, virtual addresses, the dead man's switch, gradual
 * introduction. One host with rules, servers elsewhere, a container behind a bridge.
 */

const run = promisify(execFile);
const NAMES = { ipv4: '240.0.0.0/4', ipv6: 'fd6d:6573:6800::/48' };

describe.each(['nft', 'legacy'] as const)('states with iptables-%s', (backend) => {
  let rules: RulesLab;
  let lab: Topology;
  let app: Agent;
  let other: Agent;
  let daemon: Agent;
  let inside: Agent;
  let interception: Interception;
  const open = (...config: Parameters<RulesLab['open']>): Interception => {
    interception = rules.open(...config);
    return interception;
  };
  beforeAll(async () => {
    rules = await RulesLab.build('ru', backend);
    ({ topology: lab, app, other, daemon, inside } = rules);
  });
  afterAll(() => lab.remove());
  afterEach(() => rules.expectCleanEnd());

  it('refuses at connect what nobody answers for, as long as it would have been taken', async () => {
    const known = ['10.77.0.2:8080', '[fd77::2]:8080', '10.77.0.2:8081'];
    const down = ['10.77.0.2:8080', '[fd77::2]:8080'];
    const nc = async (...args: string[]): Promise<string> =>
      run('ip', ['netns', 'exec', lab.host.name, 'nc', '-z', '-v', '-w', '3', ...args]).then(
        () => 'open',
        (error: { stderr: string }) => (/refused/i.exec(error.stderr) === null ? error.stderr : 'refused'),
      );
    await open({ bridges: [BRIDGE] }).apply({ ...wantedOf(), sets: setsOf({ redirect: known, down }) });
    expect(await app.probe('10.77.0.2', 8080)).toBe('ECONNREFUSED');
    expect(await app.probe('fd77::2', 8080)).toBe('ECONNREFUSED');
    expect(await inside.probe('10.77.0.2', 8080)).toBe('ECONNREFUSED');
    expect(await inside.probe('fd77::2', 8080)).toBe('ECONNREFUSED');
    expect(await app.probe('10.77.0.2', 8081)).toBe('captured');
    expect(await daemon.probe('10.77.0.2', 8080)).toBe('direct');
    expect([await nc('10.77.0.2', '8080'), await nc('fd77::2', '8080')]).toEqual(['refused', 'refused']);
    await interception.apply({ ...wantedOf(), sets: setsOf({ redirect: known }) });
    expect([await nc('10.77.0.2', '8080'), await nc('fd77::2', '8080')]).toEqual(['open', 'open']);
    await interception.apply({ ...wantedOf(), sets: setsOf({ redirect: known, down }) });
    await interception.withdraw();
    expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
  });

  it('virtual addresses answer on declared ports, and refuse the rest at once, with and without a default route', async () => {
    const [v4, v6] = ['240.1.0.5', 'fd6d:6573:6800::5'];
    const sets = setsOf({ redirect: [`${v4}:80`, `[${v6}]:80`] });
    const fallback = [
      { virtual: v4 as Ip, port: 80, targets: [{ ip: '10.77.0.2' as Ip, port: 8080 }] },
      { virtual: v6 as Ip, port: 80, targets: [{ ip: 'fd77::2' as Ip, port: 8080 }] },
    ];
    open({ bridges: [BRIDGE] }, NAMES);
    for (const routed of [false, true]) {
      if (routed) {
        lab.host.ip('route', 'add', 'default', 'via', '10.77.0.2');
        lab.host.ip('-6', 'route', 'add', 'default', 'via', 'fd77::2');
      }
      for (const state of ['applied', 'withdrawn', 'unattended'] as const) {
        if (state === 'applied') await interception.apply({ ...wantedOf(), sets, fallback });
        else if (state === 'withdrawn') await interception.withdraw();
        else await interception.leave();
        const answer = state === 'applied' ? 'captured' : 'direct';
        const answers = {
          declared: [v4, v6].flatMap((ip) => [app.probe(ip, 80), inside.probe(ip, 80)]),
          other: [v4, v6].flatMap((ip) => [app.probe(ip, 81), inside.probe(ip, 81)]),
          udp: [app.udp(v4, 80), app.udp(v6, 80), inside.udp(v4, 80), inside.udp(v6, 80)],
        };
        expect(await Promise.all(answers.declared), `${state} ${routed}`).toEqual(Array(4).fill(answer));
        const [refused, unreachable] = ['ECONNREFUSED', 'ENETUNREACH'];
        // The kernel takes an IPv6 route to lo for a refusal of its own where packets are forwarded.
        expect(await Promise.all(answers.other)).toEqual([refused, refused, refused, unreachable]);
        // A program of this host is told by the call itself.
        expect(await Promise.all(answers.udp)).toEqual(['EPERM', 'EPERM', refused, refused]);
        expect(await interception.verify({ members: true })).toEqual([]);
      }
    }
    lab.host.ip('route', 'del', 'default');
    lab.host.ip('-6', 'route', 'del', 'default');
    // Somebody takes the way away.
    lab.host.ip('route', 'del', '240.0.0.0/4');
    expect(await interception.verify()).toMatchObject([{ kind: 'route-missing', family: 'ipv4' }]);
    expect((await interception.reassert()).action).toBe('restored');
  });

  it('the kernel lets go by itself when no worker gives a sign of life', async () => {
    const known = ['10.77.0.2:8080', '[fd77::2]:8080'];
    await open({ deadAfter: '1s' }).apply(wantedOf(known));
    const answers = async (): Promise<string> =>
      `${await app.probe('10.77.0.2', 8080)} ${await app.probe('fd77::2', 8080)}`;
    expect(await answers()).toBe('direct direct');
    // Anybody else's datagrams say nothing.
    await other.beat(CAPTURE, true);
    await daemon.beat(CAPTURE, true);
    await waitFor('beats of the daemon', async () => (await answers()) === 'captured captured');
    await daemon.beat(CAPTURE, false);
    const stopped = performance.now();
    await waitFor('the redirection ends', async () => (await answers()) === 'direct direct', {
      timeoutMs: 5_000,
    });
    // One second, one step of the list's clock, and what a busy machine adds.
    expect(performance.now() - stopped).toBeLessThan(3_000);
    await daemon.beat(CAPTURE, true);
    await waitFor('the redirection is back', async () => (await answers()) === 'captured captured');
    await daemon.beat(CAPTURE, false);
    await other.beat(CAPTURE, false);
  });

  it('takes the share of connections that is asked for', async () => {
    await open({ percent: 25 }).apply(wantedOf(['10.77.0.2:8080', '[fd77::2]:8080']));
    for (const host of ['10.77.0.2', 'fd77::2']) {
      const { captured = 0, direct = 0, ...rest } = await app.many(host, 8080, 1000);
      expect(rest).toEqual({});
      expect(captured + direct).toBe(1000);
      // Five standard deviations of 1000 draws: one run in a million is outside.
      expect(Math.abs(captured - 250)).toBeLessThan(5 * Math.sqrt(1000 * 0.25 * 0.75));
    }
  });

  it('takes the connections of chosen users, and of nobody else', async () => {
    const wanted = wantedOf(['10.77.0.2:8080', '[fd77::2]:8080']);
    await open({ bridges: [BRIDGE] }).apply({ ...wanted, only: { uids: [OTHER_UID], cgroups: [] } });
    for (const host of ['10.77.0.2', 'fd77::2']) {
      expect(await other.probe(host, 8080)).toBe('captured');
      expect(await app.probe(host, 8080)).toBe('direct');
      expect(await inside.probe(host, 8080)).toBe('direct');
    }
    await interception.apply({ ...wanted, only: { uids: [], cgroups: [] } });
    expect(await other.probe('10.77.0.2', 8080)).toBe('direct');
    await interception.apply({ ...wanted, exempt: [{ uid: OTHER_UID }] });
    expect(await other.probe('10.77.0.2', 8080)).toBe('direct');
    expect(await app.probe('10.77.0.2', 8080)).toBe('captured');
  });

  it('follows a control group that is made anew, and does without one that is not there', async () => {
    const name = `mnru-${backend}`;
    const directory = `${cgroupMount()!.directory}/${name}`;
    const wanted = wantedOf(['10.77.0.2:8080', '[fd77::2]:8080']);
    const exempt = () => [
      { cgroup: name, inode: statSync(directory).ino },
      { cgroup: 'mnru-is-not-there', inode: 1 },
    ];
    open();
    for (let round = 0; round < 2; round++) {
      // A run that was broken off may have left it.
      mkdirSync(directory, { recursive: true });
      const member = lab.host.agent();
      writeFileSync(`${directory}/cgroup.procs`, `${member.pid}`);
      await interception.apply({ ...wanted, exempt: exempt() });
      for (const host of ['10.77.0.2', 'fd77::2']) {
        expect(await member.probe(host, 8080)).toBe('direct');
        expect(await app.probe(host, 8080)).toBe('captured');
      }
      expect(await interception.verify()).toEqual([]);
      await member.stop();
      await waitFor('the group is empty', () => {
        rmdirSync(directory);
        return true;
      });
    }
    expect(interception.status().state).toBe('applied');
  });
});
