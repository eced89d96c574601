import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Interception, Wanted } from '../../../src/capture/interception.ts';
import { setsOf, wantedOf } from '../../support/wanted.ts';
import { type Agent, BRIDGE, type Topology } from './namespace.ts';
import { RulesLab } from './rules-lab.ts';

/*
 * Strict services: closed to everybody but the agent, in every state and direction, at every address of their host, and
 * whatever other tools do to the filter table.
 */

const STATES = ['applied', 'withdrawn', 'unattended'] as const;

describe.each(['nft', 'legacy'] as const)('strict services with iptables-%s', (backend) => {
  let rules: RulesLab;
  let lab: Topology;
  let app: Agent;
  let daemon: Agent;
  let remote: Agent;
  let inside: Agent;
  let interception: Interception;
  const open = (...config: Parameters<RulesLab['open']>): Interception => {
    interception = rules.open(...config);
    return interception;
  };
  const enter = (state: (typeof STATES)[number], wanted: Wanted): Promise<void> =>
    state === 'applied'
      ? interception.apply(wanted)
      : state === 'withdrawn'
        ? interception.withdraw(wanted)
        : interception.leave();
  beforeAll(async () => {
    rules = await RulesLab.build('st', backend);
    ({ topology: lab, app, daemon, remote, inside } = rules);
  });
  afterAll(() => lab.remove());
  afterEach(() => rules.expectCleanEnd());

  it('a strict service is refused to everybody but the agent, in every state and direction', async () => {
    const strict = ['10.77.0.2:8080', '[fd77::2]:8080'];
    const hosted = ['10.77.0.1:8080', '[fd77::1]:8080', '10.77.0.1:9100', '[fd77::1]:9100'];
    const sets = setsOf({ redirect: [...strict, ...hosted], strict: [...strict, ...hosted], hosted });
    const wanted: Wanted = { ...wantedOf(), sets };
    expect(await app.hold('live', '10.77.0.2', 8080)).toBe('direct');
    expect(await inside.hold('live', '10.77.0.2', 8080)).toBe('direct');
    open();
    for (const state of STATES) {
      await enter(state, wanted);
      const local = state === 'applied' ? 'captured' : 'ECONNREFUSED';
      const answers = {
        app: [
          await app.probe('10.77.0.2', 8080),
          await app.probe('fd77::2', 8080),
          await app.probe('10.77.0.1', 8080),
          await app.probe('fd77::1', 8080),
          // Published by another tool: its rule changes the destination before the filter table is met.
          await app.probe('10.77.0.1', 9100),
          await app.probe('fd77::1', 9100),
        ],
        elsewhere: [
          await remote.probe('10.77.0.1', 8080),
          await remote.probe('fd77::1', 8080),
          await remote.probe('10.77.0.1', 9100),
          await remote.probe('fd77::1', 9100),
          await inside.probe('10.77.0.2', 8080),
          await inside.probe('fd77::2', 8080),
          await inside.probe('10.77.0.1', 8080),
        ],
        daemon: [
          await daemon.probe('10.77.0.2', 8080),
          await daemon.probe('fd77::2', 8080),
          await daemon.probe('10.77.0.1', 8080),
          await daemon.probe('10.77.0.1', 9100),
        ],
        // Not strict.
        beside: [await app.probe('10.77.0.2', 8081), await inside.probe('fd77::2', 8081)],
      };
      expect(answers, state).toEqual({
        app: Array(6).fill(local),
        elsewhere: Array(7).fill('ECONNREFUSED'),
        daemon: ['direct', 'direct', 'own', 'container'],
        beside: ['direct', 'direct'],
      });
      expect(await interception.verify({ members: true })).toEqual([]);
      rules.expectForeign();
    }
    // Connections that were there before live on.
    expect(await app.talk('live')).toBe('still-here');
    expect(await inside.talk('live')).toBe('still-here');
    // The allow-list has the last word.
    const exempt = [{ network: { family: 'ipv4', address: '10.77.0.2', prefix: 32 } }] as const;
    await interception.withdraw({ ...wanted, exempt });
    expect(await app.probe('10.77.0.2', 8080)).toBe('direct');
    expect(await app.probe('fd77::2', 8080)).toBe('ECONNREFUSED');
  });

  it('containers reach a strict service through the agent, and only so', async () => {
    const sets = setsOf({ redirect: ['10.77.0.2:8080', '10.77.0.1:8080'], strict: ['10.77.0.2:8080'] });
    const own = { strict: ['10.77.0.2:8080', '10.77.0.1:8080'], hosted: ['10.77.0.1:8080'] };
    await open({ bridges: [BRIDGE] }).apply({ ...wantedOf(), sets });
    expect(await inside.probe('10.77.0.2', 8080)).toBe('captured');
    await interception.apply({ ...wantedOf(), sets: setsOf({ redirect: own.strict, ...own }) });
    expect(await inside.probe('10.77.0.1', 8080)).toBe('captured');
    await interception.withdraw();
    expect(await inside.probe('10.77.0.2', 8080)).toBe('ECONNREFUSED');
    expect(await inside.probe('10.77.0.1', 8080)).toBe('ECONNREFUSED');
  });

  it('is closed at every address of its host, but where another service is declared', async () => {
    // Servers listen on every address; the registry knows one of them, of one family.
    const [closed, beside] = [['10.77.0.1:8080'], ['10.77.0.11:8080', '[fd77::11]:8080']];
    for (const address of ['10.77.0.11/24', 'fd77::11/64']) lab.host.address('h0', address);
    const ports = [8080, 9100];
    const sets = setsOf({ redirect: closed, strict: closed, hosted: closed, beside, ports });
    const wanted: Wanted = { ...wantedOf(), sets };
    expect(await remote.hold('before', '10.78.0.1', 8080)).toBe('own');
    open();
    for (const state of STATES) {
      await enter(state, wanted);
      const asked = (agent: Agent, ...hosts: string[]): Promise<string[]> =>
        Promise.all(hosts.map((host) => agent.probe(host, 8080)));
      const answers = {
        outside: await asked(remote, '10.77.0.1', '10.78.0.1', 'fd77::1', 'fd78::1'),
        container: await asked(inside, '10.77.0.1', '10.78.0.1', 'fd78::1'),
        published: [await remote.probe('10.77.0.1', 9100), await remote.probe('fd77::1', 9100)],
        declared: await asked(remote, '10.77.0.11', 'fd77::11'),
        // Health checks of this host, and other hosts' servers with the same port.
        local: await asked(app, '127.0.0.1', '::1', '10.78.0.1', 'fd78::1'),
        elsewhere: [...(await asked(app, '10.77.0.2', 'fd77::2')), ...(await asked(inside, '10.77.0.2'))],
      };
      expect(answers, state).toEqual({
        outside: Array(4).fill('ECONNREFUSED'),
        container: Array(3).fill('ECONNREFUSED'),
        published: Array(2).fill('ECONNREFUSED'),
        declared: ['own', 'own'],
        local: Array(4).fill('own'),
        elsewhere: Array(3).fill('direct'),
      });
    }
    expect(await remote.talk('before')).toBe('still-here');
    // The allow-list has the last word here as well.
    const exempt = [{ network: { family: 'ipv4', address: '10.78.0.1', prefix: 32 } }] as const;
    await interception.withdraw({ ...wanted, exempt });
    expect(await remote.probe('10.78.0.1', 8080)).toBe('own');
    expect(await remote.probe('10.77.0.1', 8080)).toBe('ECONNREFUSED');
  });

  it('stays closed when another tool accepts before it in the filter table, or puts that table in anew', async () => {
    const strict = ['10.77.0.2:8080', '[fd77::2]:8080'];
    const hosted = ['10.77.0.1:8080', '10.77.0.1:9100', '[fd77::1]:9100'];
    const all = [...strict, ...hosted];
    const sets = setsOf({ redirect: all, strict: all, hosted, ports: [8080, 9100] });
    const wanted: Wanted = { ...wantedOf(), sets };
    const tool = async (line: string): Promise<void> => {
      const chains = ['INPUT', 'OUTPUT', 'FORWARD']
        .map((chain) => `${line.replace('CHAIN', chain)}\n`)
        .join('');
      for (const family of ['', '6'] as const)
        await rules.restore(family, `*filter\n${chains}COMMIT\n`, '--noflush');
    };
    const closed = async (): Promise<readonly string[]> =>
      Promise.all([
        remote.silence('10.77.0.1', 8080),
        remote.silence('fd77::1', 8080),
        remote.silence('10.78.0.1', 8080),
        remote.silence('10.77.0.1', 9100),
        remote.silence('fd77::1', 9100),
        inside.silence('10.77.0.2', 8080),
        inside.silence('fd77::2', 8080),
        inside.silence('10.77.0.1', 8080),
      ]);
    const local = async (): Promise<readonly string[]> =>
      Promise.all(['10.77.0.2', 'fd77::2', '10.77.0.1'].map((host) => app.silence(host, 8080)));
    const allowed = async (): Promise<readonly string[]> => [
      await daemon.probe('10.77.0.2', 8080),
      await daemon.probe('10.77.0.1', 9100),
      await app.probe('10.77.0.2', 8081),
      await inside.probe('fd77::2', 8081),
      await app.probe('127.0.0.1', 8080),
    ];
    const silence = [Array(3).fill('timeout'), Array(8).fill('timeout')];
    open();
    await interception.apply(wanted);
    await tool('-I CHAIN 1 -j ACCEPT');
    // What is redirected still is; silence where a refusal cannot be told.
    expect(await local()).toEqual(Array(3).fill('captured'));
    expect(await closed()).toEqual(Array(8).fill('timeout'));
    expect(await allowed()).toEqual(['direct', 'container', 'direct', 'direct', 'own']);
    await interception.leave();
    expect(await local()).toEqual(Array(3).fill('ECONNREFUSED'));
    // No agent runs any more, and so nobody puts them back.
    await tool('-D CHAIN -j ACCEPT');
    await tool('-I CHAIN 1 -j ACCEPT');
    expect(await Promise.all([local(), closed()])).toEqual(silence);
    expect(await allowed()).toEqual(['direct', 'container', 'direct', 'direct', 'own']);
    await tool('-D CHAIN -j ACCEPT');
    for (const family of ['', '6'] as const) {
      const saved = /^\*filter\n[^*]*COMMIT\n/m.exec(rules.save(family))![0];
      await rules.restore(family, saved.replace(/^.*MESH_.*\n/gm, ''));
      expect(rules.save(family)).not.toMatch(/^\*filter\n[^*]*MESH_[^*]*COMMIT\n/m);
    }
    expect(await Promise.all([local(), closed()])).toEqual(silence);
    expect(await allowed()).toEqual(['direct', 'container', 'direct', 'direct', 'own']);
    expect((await interception.reassert()).action).toBe('restored');
    expect(await closed()).toEqual(Array(8).fill('ECONNREFUSED'));
  });
});
