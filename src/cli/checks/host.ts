import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { plainRunner } from '../../capture/command.ts';
import { Netfilter } from '../../capture/netfilter.ts';
import type { Config } from '../../config/schema.ts';
import { findUser } from '../../daemon/user.ts';
import { parseEndpoint } from '../../model/address.ts';
import { DaemonClient } from '../daemon-client.ts';
import { type Check, type CheckResult, fail, ok, skip, warn } from './check.ts';

const PROGRAM_MS = 10_000;
/** Two descriptors for each connection, and some for tunnels, files and the loop. */
const SPARE_DESCRIPTORS = 1024;
/** Share of the conntrack table in use at which it is worth a word, and at which it is trouble. */
const CONNTRACK_WARN = 0.6;
const CONNTRACK_FAIL = 0.9;

async function procNumbers(path: string): Promise<readonly number[] | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text?.trim().split(/\s+/).map(Number);
}

const user: Check = {
  name: 'user',
  run: async ({ daemon }) => {
    try {
      return ok(`${daemon.user} has uid ${findUser(daemon.user).uid}`);
    } catch (error) {
      return fail(
        (error as Error).message,
        `useradd --system --no-create-home --shell /usr/sbin/nologin ${daemon.user}`,
      );
    }
  },
};

const iptables: Check = {
  name: 'iptables',
  run: async ({ capture }) => {
    if (process.getuid?.() !== 0) return skip('only root may ask iptables');
    try {
      const { backend } = await Netfilter.open(capture, plainRunner);
      const without = backend.withoutIpv6 === undefined ? '' : `, no IPv6: ${backend.withoutIpv6}`;
      return ok(`${backend.version}, ${backend.families.join(' and ')}${without}`);
    } catch (error) {
      return fail((error as Error).message, 'install iptables, or choose another capture.backend');
    }
  },
};

const ipset: Check = {
  name: 'ipset',
  run: async ({ capture }) => {
    if (capture.mode !== 'services') return skip(`not needed in mode ${capture.mode}`);
    const result = await plainRunner.run({ program: 'ipset', args: ['version'], timeoutMs: PROGRAM_MS });
    const version = /ipset v[\d.]+/.exec(result.stdout)?.[0];
    if (version !== undefined) return ok(version);
    return fail(`ipset does not run: ${result.stderr.trim()}`, 'install ipset, or use capture.mode all');
  },
};

/** A port is free, or it is the daemon that has it. */
function port(
  name: string,
  at: (config: Config) => { readonly host: string; readonly port: number } | undefined,
): Check {
  return {
    name,
    run: async (config) => {
      const wanted = at(config);
      if (wanted === undefined) return skip('off');
      const text = `${wanted.host} port ${wanted.port}`;
      const failure = await tryListen(wanted.host, wanted.port);
      if (failure === undefined) return ok(`${text} is free`);
      if (failure !== 'EADDRINUSE')
        return fail(`${text} cannot be used: ${failure}`, 'choose another address or port');
      const running = await new DaemonClient(config.daemon.runtimeDirectory).ask('GET', '/v1/ready').then(
        () => true,
        () => false,
      );
      if (running) return ok(`${text} is in use while the daemon runs`);
      return fail(`${text} is taken, and not by a running mesh-node`, `ss -ltnp 'sport = :${wanted.port}'`);
    },
  };
}

function tryListen(host: string, number: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port: number, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

const portRange: Check = {
  name: 'port-range',
  run: async (config) => {
    const range = await procNumbers('/proc/sys/net/ipv4/ip_local_port_range');
    if (range === undefined) return skip('ip_local_port_range cannot be read');
    const [first = 0, last = 0] = range;
    const inside = [config.capture.port, config.tunnel.port].filter((one) => one >= first && one <= last);
    if (inside.length === 0) return ok(`our ports are outside ${first}–${last}`);
    return fail(
      `port ${inside.join(' and ')} lies within ip_local_port_range ${first}–${last}: a client's port may take it`,
      'choose ports outside, or net.ipv4.ip_local_reserved_ports',
    );
  },
};

const descriptors: Check = {
  name: 'descriptors',
  run: async ({ limits }) => {
    const text = await readFile('/proc/self/limits', 'utf8').catch(() => '');
    const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(text)?.[1];
    if (hard === undefined) return skip('the limit cannot be read');
    const needed = 2 * limits.connections + SPARE_DESCRIPTORS;
    if (hard === 'unlimited' || Number(hard) >= needed)
      return ok(`${hard} allowed here, ${needed} needed by a worker`);
    return warn(
      `${hard} allowed here, but limits.connections ${limits.connections} needs ${needed}`,
      'the systemd unit sets LimitNOFILE; elsewhere ulimit -Hn',
    );
  },
};

const conntrack: Check = {
  name: 'conntrack',
  run: async () => {
    const base = '/proc/sys/net/netfilter/nf_conntrack_';
    const [used, most] = await Promise.all([procNumbers(`${base}count`), procNumbers(`${base}max`)]);
    if (used === undefined || most === undefined) return skip('nf_conntrack is not loaded yet');
    const share = used[0]! / most[0]!;
    const detail = `${used[0]} of ${most[0]} entries in use`;
    const result: (detail: string, hint: string) => CheckResult = share >= CONNTRACK_FAIL ? fail : warn;
    return share < CONNTRACK_WARN ? ok(detail) : result(detail, 'raise net.netfilter.nf_conntrack_max');
  },
};

/** What of the host itself has to be right. */
export const hostChecks: readonly Check[] = [
  user,
  iptables,
  ipset,
  port('capture-port', ({ capture }) => ({ host: '127.0.0.1', port: capture.port })),
  port('tunnel-port', ({ tunnel }) => ({ host: tunnel.listen, port: tunnel.port })),
  port('metrics-port', ({ telemetry }) => {
    const endpoint = parseEndpoint(telemetry.metricsListen);
    return endpoint === undefined ? undefined : { host: endpoint.ip, port: endpoint.port };
  }),
  portRange,
  descriptors,
  conntrack,
];
