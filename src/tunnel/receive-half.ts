import type { ChannelHandler } from '../io/channel.ts';
import { ByteQueue } from './byte-queue.ts';
import { protocolError } from './frame.ts';
import type { ReceiveWindow } from './window.ts';

/** Most that the owner is handed at once of what waited. */
const POUR = 64 * 1024;

/** The stream that a receiving half belongs to. */
interface Receiver {
  readonly handler: ChannelHandler;
  /** The owner took so much that the peer should get credit. */
  windowDue(): void;
  /** The owner was told of the peer's END. */
  endDelivered(): void;
}

/** What a stream has received and its owner has not taken yet, within the window that the peer was given. */
export class ReceiveHalf {
  readonly #receiver: Receiver;
  readonly #queue = new ByteQueue();
  readonly #defer: (task: () => void) => void;
  #window: ReceiveWindow | undefined;
  #flowing = false;
  #pouring = false;
  #ended = false;
  #endDelivered = false;
  #over = false;
  #handedOut = false;
  #received = 0;

  constructor(receiver: Receiver, defer: (task: () => void) => void) {
    this.#receiver = receiver;
    this.#defer = defer;
  }

  /** Bytes of data that arrived. */
  get received(): number {
    return this.#received;
  }

  /** The owner was handed bytes of the peer. */
  get handedOut(): boolean {
    return this.#handedOut;
  }

  /** The owner knows that nothing more comes. */
  get done(): boolean {
    return this.#endDelivered;
  }

  /** Undefined before the stream has its session. */
  get window(): ReceiveWindow | undefined {
    return this.#window;
  }

  set window(window: ReceiveWindow) {
    this.#window = window;
  }

  pause(): void {
    this.#flowing = false;
  }

  resume(): void {
    if (this.#flowing || this.#over) return;
    this.#flowing = true;
    if (this.#pouring || (this.#queue.length === 0 && !this.#ended)) return;
    this.#pouring = true;
    this.#defer(this.#pour);
  }

  /** DATA arrived. */
  receive(bytes: Uint8Array): void {
    if (this.#ended) throw protocolError('DATA after END');
    if (!this.#window!.received(bytes.length)) throw protocolError('DATA beyond credit');
    this.#received += bytes.length;
    if (this.#flowing && this.#queue.length === 0) this.#deliver(bytes);
    else this.#queue.push(bytes);
  }

  /** END arrived. */
  end(): void {
    if (this.#ended) throw protocolError('END after END');
    this.#ended = true;
    if (this.#flowing && this.#queue.length === 0) this.#deliverEnd();
  }

  /** Lets go of everything held. */
  close(): void {
    this.#over = true;
    this.#flowing = false;
    this.#queue.clear();
    this.#window?.release();
  }

  readonly #pour = (): void => {
    this.#pouring = false;
    while (this.#flowing && this.#queue.length > 0) {
      const bytes = this.#queue.peek(POUR)!;
      this.#deliver(bytes);
      // After the owner saw them: a chunk that was let go may be written to by others.
      this.#queue.skip(bytes.length);
    }
    if (this.#flowing && this.#ended) this.#deliverEnd();
  };

  #deliver(bytes: Uint8Array): void {
    this.#handedOut = true;
    this.#receiver.handler.data(bytes);
    if (!this.#over && !this.#ended && this.#window!.consumed(bytes.length)) this.#receiver.windowDue();
  }

  #deliverEnd(): void {
    if (this.#endDelivered || this.#over) return;
    this.#endDelivered = true;
    this.#receiver.handler.end();
    this.#receiver.endDelivered();
  }
}
