import type { Endpoint } from '../model/address.ts';

/** A redirected connection as its listener sees it. */
export interface RedirectedConnection {
  readonly listener: Endpoint;
  readonly client: Endpoint;
}

/** For each connection the port that its caller really has; 0 where the kernel does not know it. */
export type SourcePortList = readonly number[];

/** Questions whose answers are waited for; the oldest is given up for one more. */
const MOST_OPEN = 64;
/** Connections of one question. */
export const MOST_ASKED = 256;

type Found = (port: number) => void;

/**
 * Asks for the source ports of connections that the kernel gave another one when it redirected them. Only the supervisor
 * may ask connection tracking, so this is a question to it: one for all connections of a turn of the loop.
 */
export class SourcePorts {
  /** How a question leaves; undefined while there is nobody to ask. */
  ask: ((id: number, connections: readonly RedirectedConnection[]) => unknown) | undefined;
  readonly #open = new Map<number, readonly Found[]>();
  #connections: RedirectedConnection[] = [];
  #found: Found[] = [];
  #id = 0;

  /** False when the question cannot be asked; otherwise `found` is told, or never: its owner has a bound of its own. */
  find(connection: RedirectedConnection, found: Found): boolean {
    if (this.ask === undefined || this.#connections.length >= MOST_ASKED) return false;
    if (this.#connections.length === 0) setImmediate(() => this.#flush());
    this.#connections.push(connection);
    this.#found.push(found);
    return true;
  }

  /** The answer to a question; one that is not waited for is dropped. */
  answered(id: number, ports: SourcePortList): void {
    const found = this.#open.get(id) ?? [];
    this.#open.delete(id);
    for (const [at, tell] of found.entries()) tell(ports[at] ?? 0);
  }

  #flush(): void {
    const connections = this.#connections;
    if (this.#open.size >= MOST_OPEN) this.#open.delete(this.#open.keys().next().value!);
    this.#open.set(++this.#id, this.#found);
    this.#connections = [];
    this.#found = [];
    this.ask?.(this.#id, connections);
  }
}
