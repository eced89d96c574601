import type { Socket } from 'node:net';
import { Packr } from 'msgpackr';
import { MeshError } from '../../model/errors.ts';
import { isPlainMessage } from './msgpack-form.ts';

/** Largest message of either direction; deltas are cut into parts far below it. */
export const MAX_CONTROL_MESSAGE = 16 * 1024 * 1024;
/** Bytes that may wait for the other side; beyond it the other side counts as hung. */
const MAX_CONTROL_BACKLOG = 64 * 1024 * 1024;

const packr = new Packr({ useRecords: false });

/** What one end takes from the other. */
export interface MessageReader<In> {
  /** Most values in one message, those within others included. */
  readonly maxValues: number;
  /** Checks every field. `unknown`: of a kind that this version does not know; undefined: nonsense. Never throws. */
  read(value: unknown): In | 'unknown' | undefined;
}

/**
 * One end of the conversation. A message is a 32-bit little-endian length and that many bytes of msgpack. An end that
 * sends anything else, or nonsense, is cut off: its side ends with a MeshError `protocol`.
 */
export class ControlChannel<Out extends object, In> {
  /** False: nonsense is passed over, for the other side may be of another version. */
  strict = true;
  readonly #socket: Socket;
  readonly #reader: MessageReader<In>;
  #onMessage: (message: In) => void;
  #onClose: (error: Error | undefined) => void;
  #parts: Buffer[] = [];
  #buffered = 0;

  constructor(
    socket: Socket,
    reader: MessageReader<In>,
    onMessage: (message: In) => void,
    onClose: (error: Error | undefined) => void,
  ) {
    this.#socket = socket;
    this.#reader = reader;
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

  /** Ends the conversation over what the other side said. */
  cutOff(why: string): void {
    this.#socket.destroy(new MeshError('protocol', 'agent', why));
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
        this.cutOff(`control message of ${length} bytes`);
        return;
      }
      if (this.#buffered < 4 + length) return;
      const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts, this.#buffered);
      const body = all.subarray(4, 4 + length);
      const rest = all.subarray(4 + length);
      this.#parts = rest.length === 0 ? [] : [rest];
      this.#buffered = rest.length;
      this.#take(body);
      if (this.#socket.destroyed) return;
    }
  }

  #take(body: Buffer): void {
    const message = this.#decode(body);
    if (message === 'malformed') this.cutOff(`control message that is none (${body.length} bytes)`);
    else if (message !== undefined && message !== 'unknown') this.#onMessage(message);
    else if (message === undefined && this.strict)
      this.cutOff(`control message with a field that cannot be (${body.length} bytes)`);
  }

  #decode(body: Buffer): In | 'unknown' | 'malformed' | undefined {
    if (!isPlainMessage(body, this.#reader.maxValues)) return 'malformed';
    let value: unknown;
    try {
      value = packr.unpack(body);
    } catch {
      return 'malformed';
    }
    return this.#reader.read(value);
  }

  #peekLength(): number {
    if (this.#parts[0]!.length < 4) this.#parts = [Buffer.concat(this.#parts, this.#buffered)];
    return this.#parts[0]!.readUInt32LE(0);
  }
}
