import { CHUNK_END, CHUNK_ROOM, lastChunkText, writeChunk, writeChunkStart } from '../http1/chunk-writer.ts';
import type { Channel } from '../io/channel.ts';

/** Room for a head (32 KiB at most, and what is added) and a good first piece of content. */
const SCRATCH_BYTES = 128 << 10;

/** Used within one call of `write` only, which copies what it cannot send. One for all writers of a worker. */
const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

/**
 * Writes messages to a channel with as few writes as their parts allow: a head waits for the first piece of content, a
 * piece for the end. Pieces are views of what is being read, so `flush` is due before that read returns.
 */
export class MessageWriter {
  /** The channel wants no more until it drains; to be set to false then. */
  blocked = false;
  /** Bytes given to channels so far. */
  written = 0;
  #channel: Channel | undefined;
  #text = '';
  #piece: Uint8Array | undefined;
  #chunked = false;

  /** Begins a message; `head` is latin1. What the last one left unwritten is forgotten. */
  begin(channel: Channel, head: string, chunked: boolean): void {
    if (channel !== this.#channel) this.blocked = false;
    this.#channel = channel;
    this.#text = head;
    this.#piece = undefined;
    this.#chunked = chunked;
  }

  /** A piece of the content; not empty. */
  content(piece: Uint8Array): void {
    if (this.#piece !== undefined) this.#write(true, '');
    this.#piece = piece;
  }

  /** The message is complete; `trailers` are lines made by `trailerLines`, for a chunked one. */
  end(trailers = ''): void {
    this.#write(false, this.#chunked ? lastChunkText(trailers) : '');
  }

  /** Writes what waits. */
  flush(): void {
    if (this.#text !== '' || this.#piece !== undefined) this.#write(false, '');
  }

  /** Lets go of the channel. */
  clear(): void {
    this.#channel = undefined;
    this.#text = '';
    this.#piece = undefined;
    this.blocked = false;
  }

  #write(more: boolean, tail: string): void {
    const text = this.#text;
    const piece = this.#piece;
    this.#text = '';
    this.#piece = undefined;
    if (piece === undefined) {
      if (text !== '' || tail !== '') this.#give(scratch.subarray(0, put(tail, put(text, 0))), more);
    } else if (text === '' && tail === '' && !this.#chunked) this.#give(piece, more);
    else if (text.length + piece.length + CHUNK_ROOM + tail.length <= SCRATCH_BYTES) {
      let at = put(text, 0);
      if (this.#chunked) at = writeChunk(scratch, at, piece);
      else {
        scratch.set(piece, at);
        at += piece.length;
      }
      this.#give(scratch.subarray(0, put(tail, at)), more);
    } else this.#writeLarge(text, piece, tail, more);
  }

  /** A piece that would have to be copied in vain. */
  #writeLarge(text: string, piece: Uint8Array, tail: string, more: boolean): void {
    let at = put(text, 0);
    if (this.#chunked) at = writeChunkStart(scratch, at, piece.length);
    if (at > 0) this.#give(scratch.subarray(0, at), true);
    this.#give(piece, more || this.#chunked);
    if (!this.#chunked) return;
    scratch.set(CHUNK_END, 0);
    this.#give(scratch.subarray(0, put(tail, CHUNK_END.length)), more);
  }

  #give(bytes: Uint8Array, more: boolean): void {
    this.written += bytes.length;
    if (!this.#channel!.write(bytes, more)) this.blocked = true;
  }
}

function put(text: string, at: number): number {
  return text === '' ? at : at + scratch.write(text, at, 'latin1');
}
