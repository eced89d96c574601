import { CHUNK_END, CHUNK_ROOM, lastChunkText, writeChunk, writeChunkStart } from '../http1/chunk-writer.ts';
import type { Channel } from '../io/channel.ts';

/** Room for every head (32 KiB of the sender's at most, and what is added), and for a good deal of content with it. */
const GATHER_BYTES = 128 << 10;
/** A larger piece of content is not worth a copy: it is written by itself. */
const MAX_GATHERED_PIECE = 16 << 10;

/**
 * Where heads and small pieces are put together; one for all writers of a worker, as one at a time has something in it.
 * `write` of a channel copies what it cannot send.
 */
const gather = Buffer.allocUnsafeSlow(GATHER_BYTES);
/** Views of its first bytes, by length: making one costs more than anything else here, and lengths come again and again. */
const VIEWS = 1024;
const views: (Uint8Array | undefined)[] = Array.from({ length: VIEWS }, () => undefined);
let gathered = 0;
let gatherer: MessageWriter | undefined;

/**
 * Writes messages to a channel with as few writes as their parts allow. Nothing is written before the end of a message
 * or `flush`, which is due before the read that the parts came from returns: large pieces are views of it.
 */
export class MessageWriter {
  /** The channel wants no more until it drains; the owner sets it to false then. */
  blocked = false;
  /** Bytes given to channels so far. */
  written = 0;
  #channel: Channel | undefined;
  /** A large piece, which waits to know whether anything follows it. */
  #piece: Uint8Array | undefined;
  #chunked = false;

  /** Begins a message; `head` is latin1. What another channel has not been given yet is forgotten. */
  begin(channel: Channel, head: string, chunked: boolean): void {
    if (channel !== this.#channel) {
      this.clear();
      this.#channel = channel;
    }
    this.#chunked = chunked;
    this.#text(head);
  }

  /** A piece of the content; not empty. */
  content(piece: Uint8Array): void {
    this.#settle(true);
    if (piece.length > MAX_GATHERED_PIECE) {
      if (this.#chunked) {
        this.#reserve(CHUNK_ROOM);
        gathered = writeChunkStart(gather, gathered, piece.length);
      }
      this.#spill(true);
      this.#piece = piece;
      return;
    }
    this.#reserve(piece.length + CHUNK_ROOM);
    if (this.#chunked) gathered = writeChunk(gather, gathered, piece);
    else {
      gather.set(piece, gathered);
      gathered += piece.length;
    }
  }

  /** The message is complete; `trailers` are lines made by `trailerLines`, for a chunked one. */
  end(trailers = ''): void {
    this.#settle(this.#chunked);
    if (this.#chunked) this.#text(lastChunkText(trailers));
    this.#spill(false);
  }

  /** Writes what waits. */
  flush(): void {
    this.#settle(false);
    this.#spill(false);
  }

  /** Lets go of the channel, and of what it has not been given. */
  clear(): void {
    if (gatherer === this) {
      gatherer = undefined;
      gathered = 0;
    }
    this.#channel = undefined;
    this.#piece = undefined;
    this.blocked = false;
  }

  #text(text: string): void {
    this.#reserve(text.length);
    gathered += Buffer.prototype.latin1Write.call(gather, text, gathered, text.length);
  }

  #settle(more: boolean): void {
    const piece = this.#piece;
    if (piece === undefined) return;
    this.#piece = undefined;
    this.#give(piece, more || this.#chunked);
    if (!this.#chunked) return;
    this.#reserve(CHUNK_END.length);
    gather.set(CHUNK_END, gathered);
    gathered += CHUNK_END.length;
  }

  /** Makes room for this many bytes, which is never more than the whole. */
  #reserve(bytes: number): void {
    if (gatherer === this && gathered + bytes > GATHER_BYTES) this.#spill(true);
    if (gatherer === this) return;
    if (gatherer !== undefined) gatherer.#spill(false);
    gatherer = this;
    gathered = 0;
  }

  #spill(more: boolean): void {
    if (gatherer !== this) return;
    const bytes = gatheredBytes();
    gatherer = undefined;
    gathered = 0;
    if (bytes.length > 0) this.#give(bytes, more);
  }

  #give(bytes: Uint8Array, more: boolean): void {
    this.written += bytes.length;
    if (!this.#channel!.write(bytes, more)) this.blocked = true;
  }
}

function gatheredBytes(): Uint8Array {
  const known = views[gathered % VIEWS];
  if (known?.length === gathered) return known;
  const view = gather.subarray(0, gathered);
  views[gathered % VIEWS] = view;
  return view;
}
