import type { Host } from './topology.ts';

type IpFamily = 'ipv4' | 'ipv6';

function command(family: IpFamily): string {
  return family === 'ipv4' ? 'iptables' : 'ip6tables';
}

/**
 * Counts in the kernel what reaches a port of a host from one address: the proof of what went in the clear. What an agent
 * delivers comes from the host's own address and is not counted.
 */
export class ClearTraffic {
  readonly #host: Host;
  readonly #family: IpFamily;
  readonly #rule: readonly string[];

  private constructor(host: Host, family: IpFamily, rule: readonly string[]) {
    this.#host = host;
    this.#family = family;
    this.#rule = rule;
  }

  static async watch(host: Host, family: IpFamily, from: string, port: number): Promise<ClearTraffic> {
    const rule = ['-s', from, '-p', 'tcp', '--dport', `${port}`, '--syn', '-j', 'ACCEPT'];
    await host.must([command(family), '-I', 'INPUT', ...rule]);
    return new ClearTraffic(host, family, rule);
  }

  /** Connections that were tried in the clear so far. */
  async attempts(): Promise<number> {
    const listing = await this.#host.must([`${command(this.#family)}-save`, '-c', '-t', 'filter']);
    const port = this.#rule[this.#rule.indexOf('--dport') + 1];
    const from = this.#rule[1];
    for (const line of listing.split('\n')) {
      if (!line.includes(`-s ${from}/`) || !line.includes(`--dport ${port} `)) continue;
      return Number(/^\[(\d+):/.exec(line)?.[1]);
    }
    throw new Error(`the rule is gone:\n${listing}`);
  }
}

/** Everything to and from a port of a host is lost from now on, as when a firewall drops it; the answer ends that. */
export async function blackhole(host: Host, family: IpFamily, port: number): Promise<() => Promise<void>> {
  const rules = [
    ['INPUT', '-p', 'tcp', '--dport', `${port}`, '-j', 'DROP'],
    ['OUTPUT', '-p', 'tcp', '--sport', `${port}`, '-j', 'DROP'],
  ];
  for (const rule of rules) await host.must([command(family), '-I', ...rule]);
  return async () => {
    for (const rule of rules) await host.must([command(family), '-D', ...rule]);
  };
}
