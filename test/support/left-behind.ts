import { chmod, chown, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { withBackstop } from '../../src/capture/backstop.ts';
import { SetPlanner } from '../../src/capture/capture-plan.ts';
import { type FallbackTexts, renderFallback } from '../../src/capture/fallback-text.ts';
import { type Family, families, setRoles } from '../../src/capture/names.ts';
import { FallbackPlanner } from '../../src/capture/rules/fallback.ts';
import { NOTHING_SAID, ruleBase } from '../../src/capture/rules/input.ts';
import { planRules } from '../../src/capture/rules/plan.ts';
import { renderRules } from '../../src/capture/rules/render.ts';
import { renderSet } from '../../src/capture/sets.ts';
import { loadConfig } from '../../src/config/load.ts';
import { type Ip, parseEndpoint } from '../../src/model/address.ts';
import type { InstanceId, Service, ServiceName } from '../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../src/model/snapshot.ts';
import type { Outcome } from './process.ts';
import { at } from './site.ts';
import { type Host, REPOSITORY } from './topology.ts';

/** User of the agent that is gone; nobody else on the machine has this number. */
export const AGENT_UID = 49_990;

export type BackendName = 'nft' | 'legacy';

/** A permissive service with one instance in each family; a strict one with `mode`. */
export const service = (
  name: string,
  port: number,
  virtual: Readonly<Record<Family, string>>,
  on: (family: Family) => string,
  mode: Service['mode'] = 'permissive',
): Service => ({
  name: name as ServiceName,
  protocol: 'tcp',
  mode,
  interchangeable: false,
  balance: 'round-robin',
  hosts: [],
  addresses: [],
  virtual: families.map((family) => virtual[family] as Ip),
  instances: families.map((family) => ({
    id: family as string as InstanceId,
    address: parseEndpoint(at(on(family), port))!,
    zone: 'default',
    labels: {},
    weight: 100,
    draining: false,
  })),
});

export const tool = (family: Family, backend: BackendName, verb: 'save' | 'restore'): string =>
  `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${backend}-${verb}`;

/**
 * A host on which an agent has been and is gone: what it left on disk and in the kernel, and systemd/withdraw-rules, which
 * needs no agent. The directories belong to the agent's user, as they do in production.
 */
export class LeftBehind {
  readonly host: Host;
  readonly state: string;
  readonly runtime: string;
  /** The hosts file that the script changes. */
  hosts: string;
  /** The configuration that it reads, which is root's. */
  readonly configuration: string;
  readonly #services: readonly Service[];
  readonly #config: string;

  private constructor(host: Host, services: readonly Service[], config: string) {
    this.host = host;
    this.state = join(host.directory, 'state');
    this.runtime = join(host.directory, 'run');
    this.hosts = join(host.directory, 'hosts');
    this.configuration = join(host.directory, 'mesh-node.yaml');
    this.#services = services;
    this.#config = config;
  }

  /** `config`: text of its configuration. */
  static async on(host: Host, services: readonly Service[], config = ''): Promise<LeftBehind> {
    const left = new LeftBehind(host, services, config);
    await writeFile(left.configuration, config);
    await writeFile(left.hosts, '127.0.0.1 localhost\n');
    for (const directory of [left.state, join(left.state, 'fallback'), left.runtime]) {
      await mkdir(directory);
      await chown(directory, AGENT_UID, AGENT_UID);
      await chmod(directory, 0o700);
    }
    return left;
  }

  /** Path of a file of STATE/fallback. */
  file(name: string): string {
    return join(this.state, 'fallback', name);
  }

  /** What the agent says, and the rules with which it redirects. */
  said(backend: BackendName) {
    const config = loadConfig({ text: this.#config });
    const snapshot = applyDelta(emptySnapshot, {
      base: 0,
      services: this.#services,
      removedServices: [],
      nodes: [],
      removedNodes: [],
    });
    const fallback = new FallbackPlanner({ node: this.host.name, zone: 'default', otherZones: [] });
    fallback.update(snapshot);
    const sets = new SetPlanner({ node: this.host.name, services: [] }).update(snapshot);
    const said = { ...ruleBase(config, AGENT_UID, []), ...NOTHING_SAID, fallback: fallback.entries };
    const rules = withBackstop(said, sets, families);
    const variant = `-${backend}` as const;
    const known = { kind: backend, version: '', variant, families, withoutIpv6: undefined } as const;
    const texts = renderFallback({ rules, sets, backend: { ...known, backstop: families }, snapshot });
    return { rules, sets, texts };
  }

  /** Writes files as the agent does; undefined takes one away. */
  async write(texts: Partial<FallbackTexts>): Promise<void> {
    for (const [name, text] of Object.entries(texts)) {
      await rm(this.file(name), { recursive: true, force: true });
      if (text === undefined) continue;
      await writeFile(this.file(name), text, { mode: 0o600 });
      await chown(this.file(name), AGENT_UID, AGENT_UID);
    }
  }

  /** As the agent left the host: redirecting to a port on which nobody listens any more, with no switch that would help. */
  async intercept(backend: BackendName): Promise<void> {
    const { rules, sets, texts } = this.said(backend);
    await this.write(texts);
    for (const family of families) {
      for (const role of setRoles)
        await this.host.must(['ipset', 'restore'], { input: renderSet(role, family, sets[role][family]) });
      const forever = { ...rules, capture: { ...rules.capture, deadAfter: 0 } };
      const input = renderRules(planRules(forever, family, 'applied'));
      await this.host.must([tool(family, backend, 'restore'), '--noflush'], { input });
      await this.host.must(['ip', family === 'ipv4' ? '-4' : '-6', 'route', 'flush', 'proto', '109']);
    }
  }

  /** The script and what it is asked to do. */
  command(...args: readonly string[]): readonly string[] {
    return [join(REPOSITORY, 'systemd/withdraw-rules'), ...args];
  }

  /** Where it finds everything. */
  get environment(): Readonly<Record<string, string>> {
    return {
      MESH_NODE_DAEMON_STATE_DIRECTORY: this.state,
      MESH_NODE_DAEMON_RUNTIME_DIRECTORY: this.runtime,
      MESH_NODE_CONFIG: this.configuration,
      WITHDRAW_HOSTS: this.hosts,
    };
  }

  /** Runs the script as systemd does. */
  run(...args: readonly string[]): Promise<Outcome> {
    return this.host.exec(this.command(...args), { env: this.environment });
  }

  /** As {@link run}, and expects that all went well; gives what it said. */
  async well(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    return stdout;
  }

  /** Everything of ours in the kernel, as text. */
  async ours(): Promise<string> {
    const backends = ['nft', 'legacy'] as const;
    const saved = await Promise.all(
      backends.flatMap((backend) =>
        families.map((family) => (backend === 'nft' ? this.saved(family, backend) : this.#legacy(family))),
      ),
    );
    const routes = ['-4', '-6'].map((family) => this.host.must(['ip', family, '-details', 'route']));
    const listed = [await this.host.must(['ipset', 'list', '-n']), ...(await Promise.all(routes))];
    return [...saved, ...listed]
      .join('')
      .split('\n')
      .filter((line) => /MESH|proto 109/.test(line) && !line.includes('--comment'))
      .join('\n');
  }

  saved(family: Family, backend: BackendName): Promise<string> {
    return this.host.must([tool(family, backend, 'save')]);
  }

  /** The legacy tables, without making any. */
  async #legacy(family: Family): Promise<string> {
    const names = await this.host.must(['cat', `/proc/net/${family === 'ipv4' ? 'ip' : 'ip6'}_tables_names`]);
    return names.trim() === '' ? '' : this.saved(family, 'legacy');
  }

  /** What a caller on this host gets there: what the server says, else how curl failed (7: refused). */
  async call(ip: string, port: number, from: readonly string[] = []): Promise<string> {
    const outcome = await this.host.exec([
      ...from,
      'curl',
      '-gsS',
      '--max-time',
      '3',
      `http://${at(ip, port)}/`,
    ]);
    return outcome.code === 0 ? outcome.stdout.trim() : `curl ${outcome.code}`;
  }
}
