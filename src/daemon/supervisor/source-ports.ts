import { MOST_ASKED, type RedirectedConnection, type SourcePortList } from '../../caller/source-ports.ts';
import { Conntrack } from '../../io/netlink-conntrack.ts';
import { type Endpoint, parseIp } from '../../model/address.ts';

/** One for the process, made when it is first needed. */
let conntrack: Conntrack | undefined;

/** Answers a worker, which may not ask the kernel itself. Believes nothing about the form of the question. */
export function sourcePortsOf(connections: readonly RedirectedConnection[]): SourcePortList {
  if (!Array.isArray(connections)) return [];
  try {
    conntrack ??= new Conntrack();
  } catch {
    return []; // out of descriptors, for instance: callers stay unknown meanwhile
  }
  const asked = connections.slice(0, MOST_ASKED) as readonly Partial<RedirectedConnection>[];
  return asked.map((one) => {
    const [listener, client] = [endpoint(one?.listener), endpoint(one?.client)];
    if (listener === undefined || client === undefined) return 0;
    return conntrack!.sourcePort(listener, client) ?? 0;
  });
}

function endpoint(value: Endpoint | undefined): Endpoint | undefined {
  const ip = typeof value?.ip === 'string' ? parseIp(value.ip) : undefined;
  return ip === undefined || !Number.isInteger(value?.port) ? undefined : { ip, port: value!.port };
}
