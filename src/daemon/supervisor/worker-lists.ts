import type {
  ConnectionsAnswer,
  EndedStatus,
  LiveConnection,
  TunnelStatus,
  TunnelsAnswer,
} from '../../admin/api.ts';
import { type Caller, callerText } from '../../model/caller.ts';
import type { ServiceName } from '../../model/service.ts';
import type { LiveConnection as WorkerConnection } from '../../proxy/connections.ts';
import { type ListItem, MAX_ITEMS } from '../control/listings.ts';
import type { WorkerList } from '../control/messages.ts';
import type { Leftover } from '../succession/leftovers.ts';
import type { TunnelView } from '../worker/tunnel-view.ts';
import type { WorkerSet } from '../workers/worker-set.ts';

/** Whose lists are gathered. */
interface Listed {
  readonly workers: WorkerSet;
  readonly leftovers: Iterable<Leftover>;
}

interface Gathered<T> {
  readonly items: readonly { readonly worker: string; readonly item: T }[];
  /** How many there are, listed or not. */
  readonly total: number;
}

/** Live connections of all workers, at most `limit`. */
export async function liveConnections(listed: Listed, limit: number): Promise<ConnectionsAnswer> {
  const { items, total } = await gather<WorkerConnection>(listed, 'connections', limit);
  const connections = items.slice(0, limit).map(
    ({ worker, item }): LiveConnection => ({
      id: item.id,
      worker,
      direction: item.direction,
      startedAt: item.startedAt,
      caller: callerOf(item),
      destination: item.destination,
      ...(item.service === undefined ? {} : { service: item.service }),
      ...(item.instance === undefined ? {} : { instance: item.instance }),
      path: item.path,
      bytesSent: item.bytesSent,
      bytesReceived: item.bytesReceived,
    }),
  );
  return { connections, total };
}

/** Tunnels of all workers, at most `limit`. */
export async function liveTunnels(listed: Listed, limit: number): Promise<TunnelsAnswer> {
  const { items, total } = await gather<TunnelView>(listed, 'tunnels', limit);
  const tunnels = items.slice(0, limit).map(({ worker, item }): TunnelStatus => {
    const { roundTripMs, ...rest } = item;
    return { ...rest, worker, ...(roundTripMs === undefined ? {} : { roundTripMs }) };
  });
  return { tunnels, total };
}

interface CallerFields {
  readonly callerProgram?: string | undefined;
  readonly caller?: Caller | undefined;
  readonly callerService?: string | undefined;
  readonly callerNode?: string | undefined;
  readonly callerAddress: string;
}

/** The best that is known of who is at the other end. */
function callerOf(item: CallerFields): string {
  if (item.callerProgram !== undefined) return item.callerProgram;
  if (item.caller !== undefined) return callerText(item.caller);
  return item.callerService ?? `${item.callerNode ?? '-'} ${item.callerAddress}`;
}

/** Connections and requests that are over and are named `id`; a connection's requests come along. The oldest first. */
export async function endedNamed(listed: Listed, id: string): Promise<readonly EndedStatus[]> {
  const { items } = await gather<ListItem<'ended'>>(listed, 'ended', MAX_ITEMS);
  return items
    .filter(({ item }) => item.id === id || item.id.startsWith(`${id}.`))
    .map(({ worker, item }): EndedStatus => ({ ...item, worker, caller: callerOf(item) }))
    .sort((a, b) => a.startedAt - b.startedAt);
}

/** Those that ended last, or of them those that did not end well. The newest first. */
export async function endedLast(
  listed: Listed,
  badly: boolean,
  limit: number,
): Promise<readonly EndedStatus[]> {
  const { items } = await gather<ListItem<'ended'>>(listed, 'ended', MAX_ITEMS);
  return items
    .filter(({ item }) => !badly || endedBadly(item))
    .map(({ worker, item }): EndedStatus => ({ ...item, worker, caller: callerOf(item) }))
    .sort((a, b) => b.startedAt + b.durationMs - a.startedAt - a.durationMs)
    .slice(0, limit);
}

function endedBadly(item: ListItem<'ended'>): boolean {
  if (item.reason !== 'done' && item.reason !== 'client-reset') return true;
  if (item.failures !== undefined) return true;
  // Of a connection that goes on after one of its requests was denied.
  return item.kind === 'request' ? item.status >= 500 : item.access?.startsWith('deny:') === true;
}

/** What the workers know of the instances of one service. */
export async function instancesOf(
  listed: Listed,
  service: ServiceName,
): Promise<readonly (ListItem<'instances'> & { readonly worker: string })[]> {
  const { items } = await gather<ListItem<'instances'>>(listed, 'instances', MAX_ITEMS);
  return items
    .filter(({ item }) => item.service === service)
    .map(({ worker, item }) => ({ ...item, worker }));
}

async function gather<T>(
  { workers, leftovers }: Listed,
  list: WorkerList,
  limit: number,
): Promise<Gathered<T>> {
  const named = Array.from(workers, (worker) => ({ name: `worker-${worker.index}`, worker }));
  const answers = await Promise.allSettled(
    [...named, ...leftovers].map(async ({ name, worker }) => ({
      worker: name,
      listing: await worker.list(list, limit),
    })),
  );
  // A worker that does not answer is being replaced; the others' lists are worth showing all the same.
  const answered = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  return {
    items: answered.flatMap(({ worker, listing }) =>
      listing.items.map((item) => ({ worker, item: item as T })),
    ),
    total: answered.reduce((sum, { listing }) => sum + listing.total, 0),
  };
}
