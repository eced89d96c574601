import type { ConnectionsAnswer, LiveConnection, TunnelStatus, TunnelsAnswer } from '../../admin/api.ts';
import { callerText } from '../../model/caller.ts';
import type { LiveConnection as WorkerConnection } from '../../proxy/connections.ts';
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

/** The best that is known of who is at the other end. */
function callerOf(item: WorkerConnection): string {
  if (item.callerProgram !== undefined) return item.callerProgram;
  if (item.caller !== undefined) return callerText(item.caller);
  return item.callerService ?? `${item.callerNode ?? '-'} ${item.callerAddress}`;
}

async function gather<T>(
  { workers, leftovers }: Listed,
  list: 'connections' | 'tunnels',
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
