import { expect } from 'vitest';
import { Interception } from '../../../src/capture/interception.ts';
import { captureConfig } from '../../support/wanted.ts';
import { type Agent, BRIDGE, buildTopology, DAEMON_UID, type Topology } from './namespace.ts';

/** Another user's programs on the host under test. */
export const OTHER_UID = 1600;
/** Where the daemon's user listens and says `captured`. */
export const CAPTURE = 15001;

/** Seconds that another program's lock is waited for: every namespace of this machine has the same one. */
const RESTORE_WAIT_S = 20;

const log = { info: () => undefined, warn: () => undefined };

/** Rules of another tool in every table: those of docker with a published port, and some of a firewall. */
const FOREIGN = (v6: boolean): string => {
  const [host, container] = v6 ? ['fd77::1', '[fd78::2]'] : ['10.77.0.1', '10.78.0.2'];
  return `*raw
-A PREROUTING -s ${host} -i none0 -j DROP
COMMIT
*mangle
-A FORWARD -o none0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -d ${host} -p tcp -m tcp --dport 9100 -j DNAT --to-destination ${container}:9101
COMMIT
*filter
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o ${BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*security
-A INPUT -s ${host} -i none0 -j DROP
COMMIT
`;
};

/**
 * One host with rules of another tool, servers elsewhere (`direct` on 8080 and 8081) and on itself (`own` on 8080, at every
 * address), a container behind a bridge (`container` on 9101, published as 9100).
 */
export class RulesLab {
  readonly #backend: 'nft' | 'legacy';
  readonly topology: Topology;
  readonly app: Agent;
  readonly other: Agent;
  readonly daemon: Agent;
  readonly remote: Agent;
  readonly inside: Agent;
  /** The one that was opened last. */
  interception: Interception;
  #before = '';
  #beforeRoutes = '';

  private constructor(tag: string, backend: 'nft' | 'legacy') {
    this.#backend = backend;
    this.topology = buildTopology(`${tag}${backend}`);
    const { host, server, container } = this.topology;
    this.app = host.agent();
    this.other = host.agent(OTHER_UID);
    this.daemon = host.agent(DAEMON_UID);
    this.remote = server.agent();
    this.inside = container.agent();
    this.interception = this.open();
  }

  static async build(tag: string, backend: 'nft' | 'legacy'): Promise<RulesLab> {
    const lab = new RulesLab(tag, backend);
    const { host, server } = lab.topology;
    await lab.daemon.listen('::', CAPTURE, 'captured');
    const far = server.agent(0);
    for (const port of [8080, 8081]) await far.listen('::', port, 'direct');
    await host.agent(0).listen('::', 8080, 'own');
    await lab.inside.listen('::', 9101, 'container');
    for (const family of ['', '6'] as const) await lab.restore(family, FOREIGN(family === '6'), '--noflush');
    lab.#before = lab.foreign();
    lab.#beforeRoutes = lab.#routes();
    return lab;
  }

  /** Feeds another tool's text to iptables-restore on the host under test. */
  async restore(family: '' | '6', input: string, ...args: string[]): Promise<void> {
    const result = await this.topology.host.runner.run({
      program: `ip${family}tables-${this.#backend}-restore`,
      args: ['-w', String(RESTORE_WAIT_S), ...args],
      input,
      timeoutMs: 2 * RESTORE_WAIT_S * 1000,
    });
    expect(result).toMatchObject({ code: 0, stderr: '', timedOut: false });
  }

  /** Every table of a family, without comments and counters. */
  save(family: '' | '6'): string {
    return this.topology.host
      .exec(`ip${family}tables-${this.#backend}-save`)
      .replace(/^#.*\n/gm, '')
      .replace(/\[\d+:\d+\]/g, '[0:0]');
  }

  /** What is not ours, in both families. */
  foreign(): string {
    return `${this.save('')}${this.save('6')}`
      .split('\n')
      .filter((line) => !line.includes('MESH_'))
      .join('\n');
  }

  #routes(): string {
    const { host } = this.topology;
    return ['-4', '-6']
      .flatMap((family) => [
        host.exec('ip', family, 'route', 'show', 'table', 'all', 'proto', '109'),
        host.exec('ip', family, 'rule', 'show'),
      ])
      .join('');
  }

  /** A new one, of which the kernel may hold nothing. */
  open(capture: object = {}, names: object = { ipv4: 'off', ipv6: 'off' }): Interception {
    this.interception = new Interception({
      config: captureConfig({ backend: this.#backend, ...capture }, names),
      uid: DAEMON_UID,
      ports: [15008],
      log,
      runner: this.topology.host.runner,
    });
    return this.interception;
  }

  /** Nothing of another tool is touched. */
  expectForeign(): void {
    expect(this.foreign()).toBe(this.#before);
  }

  /** What stands is what was meant; once removed, the host is as it was before. */
  async expectCleanEnd(): Promise<void> {
    expect(await this.interception.verify({ members: true })).toEqual([]);
    this.expectForeign();
    await this.interception.remove();
    expect(`${this.save('')}${this.save('6')}`).not.toContain('MESH_');
    this.expectForeign();
    expect(this.#routes()).toBe(this.#beforeRoutes);
    expect(this.topology.host.exec('ipset', 'list', '-n').trim()).toBe('');
  }
}
