import type { Duplex } from 'node:stream';

/** Largest question over TCP; they have a few hundred bytes at most. */
const MAX_QUESTION = 4096;
/** Answers of one connection that have not left yet; further questions wait, and what comes after them is not read. */
export const MAX_IN_FLIGHT = 32;
/** A connection from which no answer has left for this long is closed: slow bytes do not keep it. */
export const IDLE_MS = 10_000;
/** The same for bytes of answers; one that began below the bound goes beyond it by its own length at most. */
export const MAX_WAITING_BYTES = 16 * 1024;

/**
 * The questions of one connection, answered in their order. Whoever does not read its answers is not listened to: nothing
 * is read while {@link MAX_IN_FLIGHT} answers or the socket's high-water mark (see {@link MAX_WAITING_BYTES}) wait.
 */
export class StreamQuestions {
  readonly #socket: Duplex;
  readonly #answer: (question: Buffer) => Buffer | undefined;
  readonly #unread = new LengthPrefixed(MAX_QUESTION);
  readonly #idle: NodeJS.Timeout;
  #inFlight = 0;

  /** `answer` says nothing to what is no question. The socket is destroyed when its time is over or it sends nonsense. */
  constructor(socket: Duplex, answer: (question: Buffer) => Buffer | undefined) {
    this.#socket = socket;
    this.#answer = answer;
    this.#idle = setTimeout(() => socket.destroy(), IDLE_MS);
    socket.on('close', () => clearTimeout(this.#idle));
    socket.on('error', () => {}); // told by close, too
    socket.on('data', (chunk: Buffer) => {
      this.#unread.push(chunk);
      socket.pause();
      this.#work();
    });
  }

  #work(): void {
    const socket = this.#socket;
    while (!socket.destroyed && this.#inFlight < MAX_IN_FLIGHT && !socket.writableNeedDrain) {
      const question = this.#unread.next();
      if (question === undefined) {
        if (this.#unread.tooLong) socket.destroy();
        else socket.resume();
        return;
      }
      const answer = this.#answer(question);
      if (answer !== undefined) this.#send(answer);
    }
  }

  #send(answer: Buffer): void {
    this.#inFlight++;
    const framed = Buffer.allocUnsafe(2 + answer.length);
    framed.writeUInt16BE(answer.length);
    framed.set(answer, 2);
    this.#socket.write(framed, (error) => {
      this.#inFlight--;
      if (error) return;
      this.#idle.refresh();
      this.#work();
    });
  }
}

/** Cuts a stream into messages that are preceded by their length in two bytes (RFC 1035, 4.2.2). */
export class LengthPrefixed {
  readonly #most: number;
  #rest: Buffer = Buffer.alloc(0);
  /** True once a message was announced that is longer than allowed: nothing more comes out. */
  tooLong = false;

  constructor(most: number) {
    this.#most = most;
  }

  push(chunk: Buffer): void {
    if (!this.tooLong) this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
  }

  /** The next whole message; undefined: there is none yet, or never will be ({@link tooLong}). */
  next(): Buffer | undefined {
    const rest = this.#rest;
    const length = rest.length < 2 ? 0 : rest.readUInt16BE(0);
    if (length > this.#most) {
      this.tooLong = true;
      this.#rest = Buffer.alloc(0);
      return undefined;
    }
    if (rest.length < 2 + length) {
      // A few bytes must not hold the whole chunk that they came with.
      this.#rest = Buffer.from(rest);
      return undefined;
    }
    this.#rest = rest.subarray(2 + length);
    return rest.subarray(2, 2 + length);
  }
}
