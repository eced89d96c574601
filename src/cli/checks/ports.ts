import { createServer } from 'node:net';
import type { Config } from '../../config/schema.ts';
import { findUser } from '../../daemon/user.ts';
import { parseEndpoint } from '../../model/address.ts';
import { type Check, type CheckSubject, fail, ok, skip } from './check.ts';

interface Place {
  readonly host: string;
  readonly port: number;
}

/** A port is free, or it is the daemon that has it. */
function port(name: string, at: (config: Config) => Place | undefined): Check {
  return {
    name,
    run: async (subject) => {
      const wanted = at(subject.config);
      if (wanted === undefined) return skip('off');
      const text = `${wanted.host} port ${wanted.port}`;
      const failure = await tryListen(wanted);
      const running = (await subject.daemon()) !== undefined;
      if (failure === undefined) {
        return running
          ? fail(
              `${text} is free although the daemon runs: nobody listens there`,
              'systemctl restart mesh-node',
            )
          : ok(`${text} is free`);
      }
      if (failure !== 'EADDRINUSE')
        return fail(`${text} cannot be used: ${failure}`, 'choose another address or port');
      const hint = `ss -ltnp 'sport = :${wanted.port}'`;
      if (!running) return fail(`${text} is taken, and not by a running mesh-node`, hint);
      const stranger = await strangerOn(wanted.port, subject);
      if (stranger !== undefined) return fail(`${text} is held by uid ${stranger}, not by the daemon`, hint);
      return ok(`${text} is in use while the daemon runs`);
    },
  };
}

function tryListen({ host, port: number }: Place): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port: number, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** The user of a listening socket at this port that is neither the daemon's nor root (a socket unit's). */
async function strangerOn(number: number, { config, read }: CheckSubject): Promise<number | undefined> {
  const own = findUser(config.daemon.user).uid;
  const tables = await Promise.all([read('/proc/net/tcp'), read('/proc/net/tcp6')]);
  const hex = number.toString(16).toUpperCase().padStart(4, '0');
  for (const line of tables.join('\n').split('\n')) {
    // sl, local_address, rem_address, st (0A: listening), tx:rx, tr:tm, retrnsmt, uid (proc(5))
    const fields = line.trim().split(/\s+/);
    if (!fields[1]?.endsWith(`:${hex}`) || fields[3] !== '0A') continue;
    const uid = Number(fields[7]);
    if (uid !== own && uid !== 0) return uid;
  }
  return undefined;
}

const portRange: Check = {
  name: 'port-range',
  run: async ({ config, read }) => {
    const range = await read('/proc/sys/net/ipv4/ip_local_port_range');
    if (range === undefined) return skip('ip_local_port_range cannot be read');
    const [first = 0, last = 0] = range.trim().split(/\s+/).map(Number);
    const reserved = (await read('/proc/sys/net/ipv4/ip_local_reserved_ports')) ?? '';
    const explicit = config.proxy.enabled ? [config.proxy.port] : [];
    const own = [config.capture.port, config.tunnel.port, config.names.port, ...explicit];
    const inside = own.filter((one) => one >= first && one <= last && !isReserved(one, reserved));
    if (inside.length === 0) return ok(`our ports are outside ${first}–${last}`);
    return fail(
      `port ${inside.join(' and ')} lies within ip_local_port_range ${first}–${last}: a client's port may take it`,
      'choose ports outside, or net.ipv4.ip_local_reserved_ports',
    );
  },
};

/** `8080,9000-9010` holds the port. */
function isReserved(number: number, list: string): boolean {
  return list
    .trim()
    .split(',')
    .some((part) => {
      const [first, last = first] = part.split('-').map(Number);
      return first !== undefined && last !== undefined && number >= first && number <= last;
    });
}

/** Everything that the agent listens on. */
export const portChecks: readonly Check[] = [
  port('capture-port', ({ capture }) =>
    capture.mode === 'off' ? undefined : { host: '127.0.0.1', port: capture.port },
  ),
  port('tunnel-port', ({ tunnel }) => ({ host: tunnel.listen, port: tunnel.port })),
  port('names-port', ({ capture, names }) =>
    capture.mode === 'off' ? undefined : { host: '127.0.0.1', port: names.port },
  ),
  port('proxy-port', ({ proxy }) =>
    proxy.enabled
      ? { host: proxy.reach === 'everybody' ? '0.0.0.0' : '127.0.0.1', port: proxy.port }
      : undefined,
  ),
  port('metrics-port', ({ telemetry }) => {
    const endpoint = parseEndpoint(telemetry.metricsListen);
    return endpoint === undefined ? undefined : { host: endpoint.ip, port: endpoint.port };
  }),
  portRange,
];
