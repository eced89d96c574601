import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { WorkerSettings } from '../../../../src/daemon/control/messages.ts';

/** Two ends of a conversation, and a directory of their own. */
export interface Conversation {
  readonly directory: string;
  readonly ends: readonly [Socket, Socket];
  close(): void;
}

export async function conversation(): Promise<Conversation> {
  const directory = mkdtempSync(join(tmpdir(), 'mesh-control-'));
  const path = join(directory, 's');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const client = connect(path);
  const [accepted] = (await once(server, 'connection')) as [Socket];
  server.close();
  const ends = [client, accepted] as const;
  return {
    directory,
    ends,
    close: () => {
      for (const end of ends) end.destroy();
      rmSync(directory, { recursive: true });
    },
  };
}

/** Keeps what it is given; `until` looks again after each. */
export function collector<T>() {
  const items: T[] = [];
  let wake = () => {};
  return {
    items,
    take: (item: T) => {
      items.push(item);
      wake();
    },
    async until(ready: (items: readonly T[]) => boolean): Promise<void> {
      while (!ready(items))
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    },
  };
}

/** Settings of which only what a conversation needs is there. */
export function settings(daemon: Readonly<Record<string, unknown>> = {}): WorkerSettings {
  return {
    config: {
      capture: { mode: 'all' },
      telemetry: { flushInterval: 3_600_000 },
      daemon: { drainTimeout: 5, orphanTimeout: 5, runtimeDirectory: '/nowhere', ...daemon },
    },
    node: 'x',
    relay: false,
    exempt: { users: [], units: [] },
    credentials: undefined,
  } as unknown as WorkerSettings;
}

/** A change of the catalogue in which nothing changes. */
export const delta = (base: number) => ({
  ...{ base, services: [], removedServices: [], nodes: [], removedNodes: [] },
});

/** An item of the list of connections. */
export const connection = {
  ...{ id: '9-1', direction: 'outbound', startedAt: 1_000, callerNode: undefined, callerService: undefined },
  ...{ caller: { user: 'alice' }, callerProgram: 'user:alice', callerAddress: '10.0.0.1:1' },
  ...{ destination: '10.0.0.2:80', service: 'web', instance: 'a', path: 'tunnel' },
  ...{ bytesSent: 1, bytesReceived: 2 },
};
