import type { Socket } from 'node:net';
import { Packr } from 'msgpackr';
import type { RedirectedConnection, SourcePortList } from '../caller/source-ports.ts';
import type { Config } from '../config/schema.ts';
import { MeshError } from '../model/errors.ts';
import type { NodeName } from '../model/service.ts';
import type { Claim, SnapshotDelta } from '../model/snapshot.ts';
import type { ExemptNames } from '../proxy/exempt-callers.ts';
import type { Vitals } from './guard/vitals.ts';
import type { WorkerHello } from './succession/hello.ts';

/*
 * What supervisor and workers say to each other, over a socketpair of their own and not Node's IPC channel: it has to
 * survive an upgrade in which the supervisor replaces its own image. A message is a 32-bit little-endian length and
 * that many bytes of msgpack.
 */

/** Everything a worker has to know beside the snapshot; sent at start and again at each reload. */
export interface WorkerSettings {
  readonly config: Config;
  readonly node: NodeName;
  /** True in `mesh-node zone-agent`. */
  readonly relay: boolean;
  /** Users and units that the allow-list names. */
  readonly exempt: ExemptNames;
  /** PEM texts; absent while this node has no certificate, then there are no tunnels. Workers read no files. */
  readonly credentials: { readonly key: string; readonly cert: string; readonly ca: string } | undefined;
}

/** Lists that a worker answers with. */
const workerLists = ['connections', 'tunnels'] as const;
export type WorkerList = (typeof workerLists)[number];

/** The first items of a list, and how many there are. */
export interface WorkerListing {
  readonly items: readonly unknown[];
  readonly total: number;
}

export type ToWorker =
  | { readonly t: 'settings'; readonly settings: WorkerSettings }
  /**
   * `first`: forget what you had, this delta begins anew at its base. `more`: another one follows, and only with the
   * last one it is something to route by.
   */
  | {
      readonly t: 'delta';
      readonly delta: SnapshotDelta;
      readonly first: boolean;
      readonly more: boolean;
    }
  /** The whole catalogue was sent: begin to serve. */
  | { readonly t: 'synced' }
  | { readonly t: 'ping'; readonly id: number }
  /** `letGo`: of every listening socket, at once: they are for other processes now. */
  | { readonly t: 'drain'; readonly timeoutMs: number; readonly letGo: boolean }
  /** The supervisor replaces its own image: serve on until the next one is there. */
  | { readonly t: 'await' }
  | { readonly t: 'list'; readonly id: number; readonly list: WorkerList; readonly limit: number }
  | { readonly t: 'reopen-logs' }
  | { readonly t: 'source-ports'; readonly id: number; readonly ports: SourcePortList };

export type ToSupervisor =
  /** The first message to a supervisor that did not start this worker. */
  | { readonly t: 'hello'; readonly hello: WorkerHello }
  | { readonly t: 'ready' }
  | { readonly t: 'ack'; readonly version: number }
  | { readonly t: 'pong'; readonly id: number }
  | { readonly t: 'metrics'; readonly delta: unknown }
  | { readonly t: 'vitals'; readonly vitals: Vitals }
  /** All that it holds for dead, whenever that changes. */
  | { readonly t: 'outages'; readonly down: readonly Claim[] }
  | { readonly t: 'list'; readonly id: number; readonly listing: WorkerListing }
  /** Which ports the callers of these connections really have: only the supervisor may ask the kernel. */
  | {
      readonly t: 'source-ports';
      readonly id: number;
      readonly connections: readonly RedirectedConnection[];
    }
  | { readonly t: 'drained'; readonly cut: number };

/** Largest message of either direction; deltas are cut into parts far below it. */
export const MAX_CONTROL_MESSAGE = 16 * 1024 * 1024;
/** Bytes that may wait for the other side; beyond it the other side counts as hung. */
const MAX_CONTROL_BACKLOG = 64 * 1024 * 1024;

const packr = new Packr({ useRecords: false });

/** One end of the conversation. */
export class ControlChannel<Out extends object, In> {
  readonly #socket: Socket;
  #onMessage: (message: In) => void;
  #onClose: (error: Error | undefined) => void;
  #parts: Buffer[] = [];
  #buffered = 0;

  constructor(socket: Socket, onMessage: (message: In) => void, onClose: (error: Error | undefined) => void) {
    this.#socket = socket;
    this.#onMessage = onMessage;
    this.#onClose = onClose;
    let failure: Error | undefined;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => this.#onClose(failure));
  }

  /** False once the conversation is over. */
  get open(): boolean {
    return !this.#socket.destroyed;
  }

  /** From now on somebody else listens here. */
  handTo(onMessage: (message: In) => void, onClose: (error: Error | undefined) => void): void {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
  }

  /** False when the other side reads too slowly: the message was not sent, and the other side counts as hung. */
  send(message: Out): boolean {
    if (this.#socket.destroyed || this.#socket.writableLength > MAX_CONTROL_BACKLOG) return false;
    const body = packr.pack(message);
    const header = Buffer.allocUnsafe(4);
    header.writeUInt32LE(body.length);
    this.#socket.cork();
    this.#socket.write(header);
    this.#socket.write(body);
    this.#socket.uncork();
    return true;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Calls back once everything sent has left, or nobody is there to take it. */
  finish(done: () => void): void {
    if (this.#socket.destroyed) done();
    else this.#socket.end(done);
  }

  /** Resolves once everything sent has left, or the other side did not take it in time. */
  flushed(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#socket.write('', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #receive(chunk: Buffer): void {
    this.#parts.push(chunk);
    this.#buffered += chunk.length;
    while (this.#buffered >= 4) {
      const length = this.#peekLength();
      if (length > MAX_CONTROL_MESSAGE) {
        this.#socket.destroy(new MeshError('protocol', 'agent', `control message of ${length} bytes`));
        return;
      }
      if (this.#buffered < 4 + length) return;
      const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#buffered);
      const body = all.subarray(4, 4 + length);
      const rest = all.subarray(4 + length);
      this.#parts = rest.length === 0 ? [] : [rest];
      this.#buffered = rest.length;
      this.#onMessage(packr.unpack(body) as In);
    }
  }

  #peekLength(): number {
    if (this.#parts[0]!.length < 4) this.#parts = [Buffer.concat(this.#parts, this.#buffered)];
    return this.#parts[0]!.readUInt32LE(0);
  }
}
