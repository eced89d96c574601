import type { Duplex } from 'node:stream';
import { FRAME_HEADER, frameType, MAX_MESSAGE, PING_SIZE, writeHeader, writePing } from './frame.ts';
import type { Pacer } from './pacer.ts';
import { MESSAGE_HEADER_ROOM, opcode, writeMessageHeader } from './websocket.ts';

/** Runs tasks when the current turn of the loop is done with its events; the poller is one. */
export interface TurnScheduler {
  afterBatch(task: () => void): void;
}

/** Who has something to send. */
export interface OutboxClient {
  /** Sends what it owes, at most about `quantum` bytes of data; true when it could go on but found no room. */
  serve(quantum: number): boolean;
}

/** Bulk data stops filling a message here, so that control frames and small writes still find room in it. */
const BULK_END = 128 * 1024;
/** Bytes of data for one stream in its turn, when others wait. */
const QUANTUM = 16 * 1024;
/** A place at the front of each message, for the PONG. */
const FIRST_FRAME = MESSAGE_HEADER_ROOM + PING_SIZE;
/** A place at the end, for the marker. */
const LAST_FRAME = MESSAGE_HEADER_ROOM + MAX_MESSAGE - PING_SIZE;
/** Buffers kept for the next message of any session; a session holds two while it sends, none while it is idle. */
const MAX_FREE = 16;
const free: Buffer[] = [];

/**
 * The sending half of a session: collects the frames of one turn in one buffer and writes them as one message. One
 * message is with the socket at a time; what comes meanwhile fills the next one and then waits with its streams,
 * so little ever stands in front of a small frame.
 */
export class Outbox {
  readonly pacer: Pacer;
  readonly #socket: Duplex;
  readonly #masked: boolean;
  readonly #scheduler: TurnScheduler;
  #buffer: Buffer | undefined;
  #end = FIRST_FRAME;
  #waiting: OutboxClient[] = [];
  readonly #waitingSet = new Set<OutboxClient>();
  #scheduled = false;
  #sending: Buffer | undefined;
  #closed = false;
  #pong: bigint | undefined;
  /** Grows with each message; lets a stream know how much it has put in the current one. */
  turn = 0;
  bytesOut = 0;

  constructor(socket: Duplex, masked: boolean, scheduler: TurnScheduler, pacer: Pacer) {
    this.#socket = socket;
    this.#masked = masked;
    this.#scheduler = scheduler;
    this.pacer = pacer;
  }

  /** Where a control frame of at most `size` bytes may be written in `buffer`; -1 when there is no room now. */
  begin(size: number): number {
    if (this.#closed || this.#end + size > LAST_FRAME) return -1;
    this.#buffer ??= free.pop() ?? Buffer.allocUnsafeSlow(MESSAGE_HEADER_ROOM + MAX_MESSAGE);
    return this.#end;
  }

  /** The buffer that `begin` gave a place in. */
  get buffer(): Buffer {
    return this.#buffer!;
  }

  /** The frame begun ends here. */
  commit(end: number): void {
    this.#end = end;
    this.#schedule();
  }

  /**
   * Appends one DATA frame with as many bytes as may go now and returns how many that were. `light` writes pass the
   * limits that hold bulk data back.
   */
  data(stream: number, bytes: Uint8Array, most: number, light: boolean): number {
    const end = light ? LAST_FRAME : FIRST_FRAME + BULK_END;
    let count = Math.min(most, end - this.#end - FRAME_HEADER);
    if (!light) count = Math.min(count, this.pacer.room());
    // Slivers at the end of a message cost more than they carry.
    if (count <= 0 || (count < most && count < 512)) return 0;
    const at = this.begin(FRAME_HEADER + count);
    if (at < 0) return 0;
    const body = writeHeader(this.#buffer!, at, frameType.data, stream, count);
    this.#buffer!.set(count === bytes.length ? bytes : bytes.subarray(0, count), body);
    this.pacer.sent(count);
    this.commit(body + count);
    return count;
  }

  /** True when somebody already waits for room: bulk data then takes its turn. */
  get contended(): boolean {
    return this.#waiting.length > 0;
  }

  /** Has `client` served when there is room, in turn with the others. */
  wait(client: OutboxClient): void {
    if (this.#closed || this.#waitingSet.has(client)) return;
    this.#waitingSet.add(client);
    this.#waiting.push(client);
    this.#schedule();
  }

  /** Answers a PING with the next message; a newer one replaces it. */
  pong(token: bigint): void {
    this.#pong = token;
    this.#schedule();
  }

  /** Sends a marker with the next message. */
  ping(now: number): void {
    const at = this.begin(PING_SIZE);
    if (at >= 0) this.commit(writePing(this.#buffer!, at, frameType.ping, this.pacer.mark(now)));
  }

  /** A PONG made room for bulk data. */
  poke(): void {
    if (this.#waiting.length > 0) this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#sending !== undefined) return;
    this.#scheduled = true;
    this.#scheduler.afterBatch(this.#flush);
  }

  readonly #flush = (): void => {
    this.#scheduled = false;
    if (this.#closed || this.#sending !== undefined) return;
    this.#serveWaiting();
    if (!this.#closed) this.#send();
  };

  #send(): void {
    if (this.#end === FIRST_FRAME && this.#pong === undefined) return;
    const buffer = this.#buffer ?? free.pop() ?? Buffer.allocUnsafeSlow(MESSAGE_HEADER_ROOM + MAX_MESSAGE);
    this.#buffer = undefined;
    let end = this.#end;
    this.#end = FIRST_FRAME;
    this.turn++;
    if (this.pacer.markDue) {
      end = writePing(buffer, end, frameType.ping, this.pacer.mark(performance.now()));
    }
    let first = FIRST_FRAME;
    if (this.#pong !== undefined) {
      first -= PING_SIZE;
      writePing(buffer, first, frameType.pong, this.#pong);
      this.#pong = undefined;
    }
    const start = writeMessageHeader(buffer, first, opcode.binary, end - first, this.#masked);
    this.#sending = buffer;
    this.bytesOut += end - start;
    this.#socket.write(buffer.subarray(start, end), this.#written);
  }

  readonly #written = (): void => {
    const buffer = this.#sending;
    this.#sending = undefined;
    if (buffer !== undefined && free.length < MAX_FREE) free.push(buffer);
    if (!this.#closed) this.#flush();
  };

  /** Lets waiting streams fill the message, in turns, until it is full, the path is, or nobody waits. */
  #serveWaiting(): void {
    const blocked: OutboxClient[] = [];
    while (this.#waiting.length > 0 && !this.#closed) {
      const round = this.#waiting;
      this.#waiting = [];
      const quantum = round.length === 1 ? BULK_END : QUANTUM;
      let progress = false;
      for (const client of round) {
        const before = this.#end;
        this.#waitingSet.delete(client);
        if (client.serve(quantum) && !this.#waitingSet.has(client)) {
          this.#waitingSet.add(client);
          if (this.#end > before) this.#waiting.push(client);
          else blocked.push(client);
        }
        progress ||= this.#end > before;
      }
      if (!progress) break;
    }
    // Who found no room goes first the next time.
    if (blocked.length > 0) this.#waiting = blocked.concat(this.#waiting);
  }

  /** Sends what is there in one last message, then `tail`; nothing after that. */
  finish(tail: Buffer): void {
    if (this.#closed) return;
    this.#serveWaiting();
    // A buffer with the socket is never reused: a destroyed socket may not say when it let go of it.
    this.#sending = undefined;
    this.#send();
    this.#closed = true;
    this.#sending = undefined;
    this.#waiting = [];
    this.#waitingSet.clear();
    this.#socket.write(tail);
  }
}
