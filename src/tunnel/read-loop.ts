import type { Duplex } from 'node:stream';

/** Most that one read gives: a full TLS record. More are likely to follow one of this size at once. */
const RECORD = 16 * 1024;
/** Full records that are handed on together. */
const GATHERED_RECORDS = 16;
/** Gathering buffers in use, over all sessions: 16 MiB. Without one, records are handed on one by one. */
const MAX_BUFFERS = 64;
/** Gathering buffers kept for later: 2 MiB. */
const MAX_FREE = 8;

/** All sessions of the process read into it: bytes are used up within the call. */
const shared = Buffer.allocUnsafeSlow(RECORD);

/** What node:net keeps for its documented option `onread`, which TLS sockets of a server cannot be given. */
interface NativeSocket {
  readonly _handle?: {
    useUserBuffer?(buffer: Uint8Array): void;
    /** What a TLS socket stands on, if not on its own descriptor; node wraps a stream that is no socket. */
    readonly _parentWrap?: { readonly stream?: Duplex };
  } | null;
  [symbol: symbol]: unknown;
}

type Receive = (bytes: Buffer) => void;

/**
 * Hands on what `socket` reads, without an allocation for each read where node allows it (bulk data then costs a
 * fifth less: an ArrayBuffer for each TLS record keeps the collector's threads busy), and full records that came
 * together in one piece. The bytes are valid during the call only.
 * Only for a connection of its own: a session inside a relay stream reads while the one that carries it is in the
 * middle of that buffer, and would overwrite what is not parsed yet. Returns false for such a one, and when node's
 * internals look different: then the ordinary `data` event is used alone.
 */
export function readLoop(socket: Duplex, receive: Receive): boolean {
  // Ordinary reads, and what the stream holds already.
  socket.on('data', receive);
  const native = socket as unknown as NativeSocket;
  if (native._handle?._parentWrap?.stream !== undefined) return false;
  const own = Object.getOwnPropertySymbols(socket);
  const find = (name: string) => own.find((symbol) => symbol.description === name);
  const buffer = find('kBuffer');
  const callback = find('kBufferCb');
  const next = find('kBufferGen');
  const useUserBuffer = native._handle?.useUserBuffer;
  if (buffer === undefined || callback === undefined || next === undefined) return false;
  if (typeof useUserBuffer !== 'function') return false;
  const gatherer = new Gatherer(receive);
  native[callback] = (count: number): boolean => {
    try {
      gatherer.arrived(count);
    } catch (error) {
      // A mistake of ours. Node was not told where to read next, so this connection is over.
      socket.destroy();
      throw error;
    }
    return true;
  };
  native[next] = (): Buffer | undefined => gatherer.next();
  native[buffer] = shared;
  useUserBuffer.call(native._handle, shared);
  // What was read before the end is handed on before it.
  for (const event of ['end', 'close', 'error']) socket.prependListener(event, gatherer.flush);
  socket.once('close', () => gatherer.release());
  return true;
}

/** A buffer for records in a row, and the places where each of them goes. */
interface GatherBuffer {
  readonly whole: Buffer;
  readonly places: readonly Buffer[];
}

const free: GatherBuffer[] = [];
let used = 0;

function gatherBuffer(): GatherBuffer {
  used++;
  const known = free.pop();
  if (known !== undefined) return known;
  const whole = Buffer.allocUnsafeSlow(GATHERED_RECORDS * RECORD);
  const places = Array.from({ length: GATHERED_RECORDS }, (_, at) => whole.subarray(at * RECORD));
  return { whole, places };
}

function giveBack(buffer: GatherBuffer): void {
  used--;
  if (free.length < MAX_FREE) free.push(buffer);
}

/**
 * A short record is handed on at once, with whatever full ones came before it. A full one waits for more until the
 * loop has seen everything that was ready, in a buffer of the session's own: one piece of 128 KiB costs the
 * application's socket much less than eight of 16 KiB.
 */
class Gatherer {
  readonly #receive: Receive;
  #buffer: GatherBuffer | undefined;
  /** Where in `#buffer` the next record goes, in records; and the first that is not handed on. */
  #records = 0;
  #handedOn = 0;
  #scheduled = false;
  /** Where node reads into from now on, when that changes. */
  #next: Buffer | undefined;

  constructor(receive: Receive) {
    this.#receive = receive;
  }

  /** Node read `count` bytes into the place that it was given last. */
  arrived(count: number): void {
    const full = count === RECORD;
    if (this.#buffer === undefined) {
      if (!full || used >= MAX_BUFFERS) {
        this.#receive(shared.subarray(0, count));
        return;
      }
      this.#buffer = gatherBuffer();
      this.#buffer.whole.set(shared);
    }
    const buffer = this.#buffer;
    this.#records++;
    if (full && this.#records < GATHERED_RECORDS) {
      this.#next = buffer.places[this.#records];
      this.#schedule();
      return;
    }
    const end = (this.#records - 1) * RECORD + count;
    const start = this.#handedOn * RECORD;
    this.#buffer = undefined;
    this.#records = 0;
    this.#handedOn = 0;
    this.#next = shared;
    try {
      this.#receive(buffer.whole.subarray(start, end));
    } finally {
      giveBack(buffer);
    }
  }

  /** Node reads nothing more. */
  release(): void {
    if (this.#buffer !== undefined) giveBack(this.#buffer);
    this.#buffer = undefined;
  }

  next(): Buffer | undefined {
    const next = this.#next;
    this.#next = undefined;
    return next;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.flush);
  }

  /** Nothing more was ready. The buffer stays: node goes on reading behind what is handed on here. */
  readonly flush = (): void => {
    this.#scheduled = false;
    const { whole } = this.#buffer ?? {};
    if (whole === undefined || this.#handedOn === this.#records) return;
    const start = this.#handedOn * RECORD;
    this.#handedOn = this.#records;
    this.#receive(whole.subarray(start, this.#records * RECORD));
  };
}
