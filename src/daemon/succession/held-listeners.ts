import { setTimeout } from 'node:timers/promises';
import type { Config } from '../../config/schema.ts';
import { type BoundSocket, boundSocket } from '../../io/bound-socket.ts';
import { closeDescriptor } from '../../io/descriptors.ts';
import type { ServiceNotifier } from '../../io/notify.ts';
import type { Log } from '../../telemetry/log.ts';
import {
  type Listener,
  type ListenerDescription,
  type ListenerKind,
  listenerKinds,
  openListener,
  wantedListeners,
} from './listeners.ts';

/** How long a port that is taken is tried again, and how often. */
const BIND_PATIENCE_MS = 3_000;
const BIND_PAUSE_MS = 100;

/** A descriptor that came from the service manager or from the image of this process before. */
export interface OfferedDescriptor {
  readonly fd: number;
  /** `<kind>-<number>` when an agent left it there; FileDescriptorName= of a socket unit otherwise. */
  readonly name: string;
}

/** What is made of descriptors that were offered. */
interface Assignment {
  readonly taken: readonly (Listener & { readonly name: string })[];
  /** What has to be opened. */
  readonly missing: readonly ListenerDescription[];
  readonly refused: readonly OfferedDescriptor[];
}

/**
 * Decides which of the offered descriptors are what this agent wants to listen on: by address, and a tunnel listener
 * also by name, because a socket unit may listen on an address of the operator's choice. `facts` says what a descriptor
 * is.
 */
export function assign(
  wanted: readonly ListenerDescription[],
  offered: readonly OfferedDescriptor[],
  facts: (fd: number) => BoundSocket | undefined = boundSocket,
): Assignment {
  const taken: (Listener & { name: string })[] = [];
  const refused: OfferedDescriptor[] = [];
  let missing = wanted;
  for (const { fd, name } of offered) {
    const found = facts(fd);
    const fits = (one: ListenerDescription): boolean =>
      found !== undefined &&
      one.port === found.port &&
      (one.kind === 'dns-udp') === (found.type === 'datagram') &&
      (one.ip === found.ip || (name === 'tunnel' && one.kind === 'tunnel'));
    const match = missing.find(fits);
    if (match === undefined || found === undefined) refused.push({ fd, name });
    else {
      taken.push({ kind: match.kind, ip: found.ip, port: found.port, fd, name });
      missing = missing.filter((one) => one !== match);
    }
  }
  return { taken, missing, refused };
}

export interface HoldOptions {
  readonly notifier: ServiceNotifier;
  readonly log: Log;
  /** A port is taken: workers of an agent before this one may still listen there. */
  onTaken(): Promise<void>;
}

/**
 * Everything this agent listens on. Under a service manager copies are left with it: connections that wait in a queue
 * live on whatever becomes of this process, and the next one goes on with the same sockets.
 */
export class HeldListeners {
  readonly all: readonly Listener[];
  readonly #names: ReadonlyMap<number, string>;

  private constructor(listeners: readonly (Listener & { readonly name: string })[]) {
    this.all = listeners.map(({ kind, ip, port, fd }) => ({ kind, ip, port, fd }));
    this.#names = new Map(listeners.map(({ fd, name }) => [fd, name]));
  }

  static none(): HeldListeners {
    return new HeldListeners([]);
  }

  /** Takes what fits, opens what is missing, lets go of the rest. Opens all or nothing; patient with ports that are taken. */
  static async hold(
    config: Config,
    offered: readonly OfferedDescriptor[],
    { notifier, log, onTaken }: HoldOptions,
  ): Promise<HeldListeners> {
    const { taken, missing, refused } = assign(wantedListeners(config), offered);
    for (const { fd, name } of refused) {
      log.info({ name }, 'listener: a descriptor that the configuration does not want is closed');
      if (kindOf(name) !== undefined) notifier.forget(name);
      closeDescriptor(fd);
    }
    const names = new Set(taken.map(({ name }) => name));
    const opened: (Listener & { name: string })[] = [];
    try {
      for (const description of missing) {
        const fd = await openSoon(description, onTaken);
        const name = freeName(description.kind, names);
        opened.push({ ...description, fd, name });
        if (notifier.managed && !notifier.store(name, fd))
          log.warn({ name }, 'listener: the service manager did not take a copy');
      }
    } catch (error) {
      // What was taken stays open: the version before may want it back.
      for (const { fd } of opened) closeDescriptor(fd);
      throw error;
    }
    return new HeldListeners([...taken, ...opened]);
  }

  /** For the next image of this process. */
  offer(): readonly OfferedDescriptor[] {
    return this.all.map(({ fd }) => ({ fd, name: this.#names.get(fd)! }));
  }

  /** Closes them in this process; workers and the service manager keep theirs. */
  close(): void {
    for (const { fd } of this.all) closeDescriptor(fd);
  }
}

/** Of the names under which an agent leaves descriptors; undefined for the names of others. */
function kindOf(name: string): ListenerKind | undefined {
  const [, kind] = /^(.*)-\d+$/.exec(name) ?? [];
  return listenerKinds.find((one) => one === kind);
}

function freeName(kind: ListenerKind, taken: Set<string>): string {
  for (let number = 0; ; number++) {
    const name = `${kind}-${number}`;
    if (taken.has(name)) continue;
    taken.add(name);
    return name;
  }
}

/** With patience: the workers of a supervisor that was killed may hold a port for a moment. */
async function openSoon(description: ListenerDescription, onTaken: () => Promise<void>): Promise<number> {
  const deadline = performance.now() + BIND_PATIENCE_MS;
  for (;;) {
    try {
      return openListener(description);
    } catch (error) {
      if (!/EADDRINUSE/.test(String(error)) || performance.now() > deadline) throw error;
      await onTaken();
      await setTimeout(BIND_PAUSE_MS);
    }
  }
}
