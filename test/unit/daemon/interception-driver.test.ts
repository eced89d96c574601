import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { InterceptionDriver } from '../../../src/daemon/interception/interception-driver.ts';
import { type EndpointKey, parseEndpoint } from '../../../src/model/address.ts';
import type { InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type Snapshot } from '../../../src/model/snapshot.ts';
import { createLog } from '../../../src/telemetry/log.ts';
import { waitFor } from '../../support/process.ts';
import { FakeKernel } from '../capture/fake-kernel.ts';

function snapshotOf(before: Snapshot, mode: 'permissive' | 'strict', ...addresses: string[]): Snapshot {
  const service: Service = {
    name: 'orders' as ServiceName,
    protocol: 'tcp',
    mode,
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: addresses.map((text) => ({
      id: text as InstanceId,
      address: parseEndpoint(text)!,
      zone: 'z',
      labels: {},
      weight: 100,
      draining: false,
    })),
  };
  const delta = {
    base: before.version,
    services: [service],
    removedServices: [],
    nodes: [],
    removedNodes: [],
  };
  return applyDelta(before, delta);
}

describe('InterceptionDriver', () => {
  let kernel: FakeKernel;
  let driver: InterceptionDriver;
  let directory: string;
  let health: (string | undefined)[];
  let applied: number[];
  const config = (capture: object = {}) =>
    configSchema.parse({
      node: { name: 'here' },
      capture: {
        ipv6: 'off',
        allowList: join(directory, 'allow-list'),
        reassertInterval: '20ms',
        ...capture,
      },
      names: { ipv4: 'off', ipv6: 'off' },
      daemon: { user: 'root', runtimeDirectory: directory },
    });
  const redirected = (): string[] => [...(kernel.sets.get('MESH_DST4')?.members ?? [])];
  const redirects = (): boolean => kernel.nat.has('MESH_OUT');

  beforeEach(async () => {
    kernel = new FakeKernel();
    directory = mkdtempSync(join(tmpdir(), 'mesh-driver-'));
    health = [];
    applied = [];
    driver = new InterceptionDriver({
      config: config(),
      uid: 990,
      log: createLog({ level: 'error', process: 'test', to: { write: () => true } }),
      runner: kernel,
      onHealth: (problem) => health.push(problem),
      onApplied: (version) => applied.push(version),
      onAllowList: (entries) => driver.setExemptions(entries as never, undefined),
    });
    await driver.start();
  });
  afterEach(async () => {
    await driver.withdraw();
    rmSync(directory, { recursive: true });
  });
  const first = snapshotOf(emptySnapshot, 'permissive', '10.0.0.1:80');

  it('takes together what comes while a change is under way', async () => {
    driver.acknowledged(first);
    let newest = first;
    for (let i = 0; i < 500; i++) {
      newest = snapshotOf(newest, 'permissive', `10.0.1.${i % 250}:80`, '10.0.0.1:80');
      driver.acknowledged(newest);
    }
    await waitFor('the newest is in force', () => applied.includes(newest.version));
    expect(kernel.mostAtOnce).toBe(1);
    expect(redirected().sort()).toEqual(['10.0.0.1,tcp:80', '10.0.1.249,tcp:80']);
    expect(applied.length).toBeLessThan(5);
  });

  it('begins nothing before there are both a snapshot and a list that can be used', async () => {
    writeFileSync(join(directory, 'bad'), 'not an entry\n');
    const other = new InterceptionDriver({
      config: config({ allowList: join(directory, 'bad') }),
      uid: 990,
      log: createLog({ level: 'error', process: 'test', to: { write: () => true } }),
      runner: kernel,
      onHealth: (problem) => health.push(problem),
      onApplied: () => undefined,
      onAllowList: (entries) => other.setExemptions(entries as never, undefined),
    });
    await other.start();
    other.acknowledged(first);
    await other.suspend('overload');
    expect(other.begun).toBe(false);
    expect(health).toEqual(['the allow-list cannot be used']);
    await other.withdraw();
    await other.remove();
    expect(kernel.commands).toEqual([]);
  });

  it('goes direct for as long as there is a reason to, and follows strict services meanwhile', async () => {
    driver.acknowledged(first);
    await driver.suspend('disabled');
    expect(redirects()).toBe(false);
    await driver.suspend('overload');
    driver.acknowledged(snapshotOf(first, 'strict', '10.0.0.9:80'));
    await driver.resume('disabled');
    await waitFor('the strict address', () =>
      kernel.sets.get('MESH_STRICT4')?.members.has('10.0.0.9,tcp:80'),
    );
    expect(redirects()).toBe(false);
    expect(driver.status).toMatchObject({ state: 'withdrawn', strict: { ipv4: 1 } });
    await driver.resume('overload');
    expect(redirects()).toBe(true);
    expect(redirected()).toEqual(['10.0.0.9,tcp:80']);
  });

  it('refuses what is down by experience', async () => {
    driver.acknowledged(first);
    driver.setDown(new Set(['10.0.0.1:80'] as EndpointKey[]));
    await waitFor('it is refused', () => kernel.sets.get('MESH_DOWN4')?.members.has('10.0.0.1,tcp:80'));
    driver.setDown(new Set());
    await waitFor('it is taken again', () => kernel.sets.get('MESH_DOWN4')?.members.size === 0);
  });

  it('stays out after the third flush, of whatever table, and comes back when it is asked to', async () => {
    driver.acknowledged(first);
    await waitFor('rules', redirects);
    const filter = kernel.families.iptables.filter;
    const flush = (): void => {
      for (const [chain, rules] of kernel.families.iptables.filter)
        if (!chain.startsWith('DOCKER')) rules.length = 0;
    };
    for (let times = 0; times < 2; times++) {
      flush();
      await waitFor('put back', () => kernel.families.iptables.filter.get('OUTPUT')!.length > 0);
    }
    flush();
    await waitFor('staying out', () => driver.status.state === 'withdrawn-by-operator');
    expect(redirects()).toBe(false);
    expect(health.at(-1)).toBe('rules were taken away by the operator');
    // What others left of the refusals is theirs, and nothing that changes brings rules back.
    expect(filter.get('OUTPUT')).toEqual([]);
    driver.acknowledged(snapshotOf(first, 'permissive', '10.0.0.2:80'));
    driver.setExemptions([], undefined);
    await driver.suspend('overload');
    await driver.resume('overload');
    expect(driver.status.state).toBe('withdrawn-by-operator');
    expect(redirects()).toBe(false);
    await driver.configure(config());
    expect(redirects()).toBe(true);
    expect(redirected()).toEqual(['10.0.0.2,tcp:80']);
    expect(health.at(-1)).toBeUndefined();
  });

  it('leaves refusals of strict services behind, and nothing where nothing has to hold', async () => {
    driver.acknowledged(snapshotOf(emptySnapshot, 'strict', '10.0.0.9:80'));
    await waitFor('rules', redirects);
    await driver.withdraw();
    await driver.remove();
    expect([...kernel.sets.keys()]).toEqual(['MESH_STRICT4', 'MESH_HOST4', 'MESH_BESIDE4', 'MESH_PORT4']);
    expect(kernel.families.iptables.filter.get('OUTPUT')).toEqual(['-j MESH_GUARD']);
    expect(kernel.families.iptables.raw.get('OUTPUT')).toEqual([]);
  });

  it('leaves nothing where nothing has to hold without an agent', async () => {
    driver.acknowledged(first);
    await waitFor('rules', redirects);
    await driver.withdraw();
    expect(kernel.nat.has('MESH_KEEP')).toBe(true);
    await driver.remove();
    expect(kernel.nat.has('MESH_KEEP')).toBe(false);
    expect([...kernel.sets.keys()]).toEqual([]);
  });

  it('says why it failed, and tries again by itself', async () => {
    kernel.fail = (command) =>
      command.program === 'ipset' && command.input ? { stderr: 'no memory' } : undefined;
    driver.acknowledged(first);
    await waitFor('the failure', () => health.some((problem) => problem?.includes('no memory')));
    expect(applied).toEqual([]);
    kernel.fail = () => undefined;
    await waitFor('rules', redirects);
    expect(health.at(-1)).toBeUndefined();
  });
});
