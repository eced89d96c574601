import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { Naming } from '../../../src/daemon/supervisor/naming.ts';
import type { Service, ServiceName } from '../../../src/model/service.ts';
import { Catalogue } from '../../../src/registry/catalogue.ts';
import type { Source, SourceListener } from '../../../src/registry/source.ts';
import { createLog } from '../../../src/telemetry/log.ts';
import { service } from '../naming/sample-names.ts';

let directory: string;
let logged: string[];
const running: Naming[] = [];

const config = (more = '') => {
  const names = `names: {ipv6: off, resolveInterval: 20ms${more}}`;
  return loadConfig({
    text: `{daemon: {stateDirectory: ${directory}}, cache: {writeDelay: 1ms}, ${names}}`,
  });
};
const log = () => createLog({ level: 'info', process: 'test', to: { write: (line) => logged.push(line) } });

/** A registry that says what the test says. */
class Registry implements Source {
  readonly name = 'test';
  readonly status = { state: 'synced', confirmedAt: 1, problems: [] } as unknown as Source['status'];
  #listener: SourceListener | undefined;

  start(listener: SourceListener): void {
    this.#listener = listener;
  }

  async stop(): Promise<void> {}

  say(services: readonly Service[], removed: readonly string[] = []): void {
    this.#listener!.update({
      kind: 'change',
      services,
      removedServices: removed as ServiceName[],
      nodes: [],
      removedNodes: [],
    });
  }
}

interface Agent {
  readonly naming: Naming;
  readonly registry: Registry;
  readonly catalogue: Catalogue;
  virtual(name: string): readonly string[] | undefined;
}

async function agent(more?: string): Promise<Agent> {
  const naming = new Naming(config(more), log());
  running.push(naming);
  await naming.load();
  const registry = new Registry();
  const catalogue = new Catalogue([registry], { warn: () => {}, info: () => {} } as never, (said) =>
    naming.decorate(said),
  );
  naming.follow(catalogue);
  catalogue.start();
  return {
    ...{ naming, registry, catalogue },
    virtual: (name) => catalogue.snapshot.services.get(name as ServiceName)?.virtual,
  };
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'naming-'));
  logged = [];
});
afterEach(async () => {
  for (const naming of running.splice(0)) await naming.stop();
  rmSync(directory, { recursive: true });
});

/** Two names that meet at their first place in a range of 254 addresses. */
const [FIRST, SECOND] = ['s14', 's35'];

describe('virtual addresses', () => {
  const small = ', ipv4: 10.7.3.0/24';

  it('outlive the agent, in the order in which they were given first', async () => {
    const before = await agent(small);
    before.registry.say([service(FIRST, [])]);
    before.registry.say([service(SECOND, [])]);
    const given = [before.virtual(FIRST), before.virtual(SECOND)];
    expect(given[0]).toHaveLength(1);
    await before.naming.stop();
    const after = await agent(small);
    after.registry.say([service(SECOND, [])]);
    after.registry.say([service(FIRST, [])]);
    expect([after.virtual(FIRST), after.virtual(SECOND)]).toEqual(given);
  });

  it('follow from the names again when the file is damaged, and it is set aside', async () => {
    writeFileSync(join(directory, 'virtual-addresses'), 'garbage');
    const { registry, virtual } = await agent();
    registry.say([service('orders', [])]);
    expect(virtual('orders')).toEqual(['252.22.138.219']);
    expect(readdirSync(directory).some((name) => name.startsWith('virtual-addresses.damaged-'))).toBe(true);
    expect(logged.join('')).toContain('damaged');
  });

  it('are destinations at the ports of the service', async () => {
    const { registry, catalogue } = await agent();
    registry.say([service('orders', ['10.0.0.1:80'], { ports: [81, 82] })]);
    const keys = Array.from(catalogue.snapshot.destinations, ([key]) => key).sort();
    expect(keys).toEqual(['10.0.0.1:80', '252.22.138.219:81', '252.22.138.219:82']);
  });

  it('stay with a service that another registry speaks of next', async () => {
    const { naming, registry, virtual } = await agent();
    registry.say([service('orders', [])]);
    expect(virtual('orders')).toEqual(['252.22.138.219']);
    const next = new Catalogue([new Registry()], { warn: () => {} } as never, (said) =>
      naming.decorate(said),
    );
    naming.follow(next);
    expect(naming.decorate(service('orders', [])).virtual).toEqual(['252.22.138.219']);
  });

  it('are none without interception', () => {
    const off = new Naming(loadConfig({ text: 'capture: {mode: off}' }), log());
    const said = service('orders', []);
    expect(off.decorate(said)).toBe(said);
  });
});

describe('hosts of services', () => {
  it('are resolved, and claim what they resolve to; loopback means nothing', async () => {
    const { naming, registry, catalogue } = await agent();
    registry.say([service('orders', ['10.0.0.1:80'], { hosts: ['192.0.2.5', 'localhost', 'users.mesh'] })]);
    await nextTurn();
    await naming.hostNames.asked(5_000);
    const { resolved } = catalogue.snapshot.services.get('orders' as ServiceName)!;
    expect(resolved).toEqual([{ ip: '192.0.2.5', port: 80 }]);
    expect(logged.join('')).not.toContain('users.mesh');
    expect(catalogue.snapshot.destinations.get('192.0.2.5:80' as never)).toEqual([{ service: 'orders' }]);
    registry.say([], ['orders']);
    await nextTurn();
    expect(catalogue.snapshot.destinations.size).toBe(0);
  });

  it('are resolved once for whoever only looks, who leaves nothing behind', async () => {
    const naming = new Naming(config(), log());
    await naming.load();
    const registry = new Registry();
    const catalogue = new Catalogue([registry], { warn: () => {} } as never, (said) => naming.decorate(said));
    catalogue.start();
    registry.say([service('orders', ['10.0.0.1:80'], { hosts: ['192.0.2.5'] })]);
    await naming.resolveOnce(catalogue, 5_000);
    expect(catalogue.snapshot.destinations.has('192.0.2.5:80' as never)).toBe(true);
    expect(catalogue.snapshot.destinations.has('252.22.138.219:80' as never)).toBe(true);
    expect(readdirSync(directory)).toEqual([]);
  });
});
