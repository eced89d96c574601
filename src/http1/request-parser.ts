import { BodyReader } from './body-reader.ts';
import { CR, LF } from './characters.ts';
import { headScanner } from './head-scanner.ts';
import { DEFAULT_LIMITS, type Http1Limits } from './limits.ts';
import type { MessageSink } from './message-sink.ts';
import { HttpRefusal } from './refusal.ts';
import { type RequestHead, requestHead } from './request-head.ts';
import type { SectionScanner } from './section-scanner.ts';

/**
 * Reads requests from the bytes of a connection, one at a time: it stops exactly after each, so that the next one of a
 * pipeline is looked at only when its turn has come, and so that an upgraded protocol's bytes are never taken for HTTP.
 */
export class RequestParser {
  readonly #sink: MessageSink<RequestHead>;
  readonly #limits: Http1Limits;
  readonly #scanner: SectionScanner;
  readonly #body: BodyReader;
  #phase: 'before' | 'empty-line' | 'head' | 'body' | 'done' = 'before';
  /** Why nothing is read any more. */
  #refusal: unknown;
  #mayBeEmptyLine = true;
  /** No request follows the one being read. */
  #last = false;
  #paused = false;

  constructor(sink: MessageSink<RequestHead>, limits: Http1Limits = DEFAULT_LIMITS) {
    this.#sink = sink;
    this.#limits = limits;
    this.#scanner = headScanner('request', limits);
    this.#body = new BodyReader('request', limits);
  }

  /** The request is complete; nothing more is read before `next`. */
  get done(): boolean {
    return this.#phase === 'done';
  }

  /** Not one byte of the next request has come: the only place where a connection may end. */
  get idle(): boolean {
    return this.#phase === 'before' || this.#phase === 'done';
  }

  /**
   * Makes ready for the next request. Returns false where none can follow: the client said that this was its last one, or
   * asked for a tunnel. (After a switch of protocols it is the owner who knows.)
   */
  next(): boolean {
    if (this.#phase !== 'done' || this.#last) return false;
    this.#phase = 'before';
    this.#mayBeEmptyLine = true;
    return true;
  }

  /**
   * The running `push` ends after the event that is being told (and the end that follows a head without content at once);
   * push what it did not take again, later.
   */
  pause(): void {
    this.#paused = true;
  }

  /**
   * Reads `chunk` from `from` on. Returns the index after what was taken: all of it, unless the request ended before
   * that, or `pause` was called. Throws an {@link HttpRefusal}; the connection cannot be read any further then.
   */
  push(chunk: Uint8Array, from = 0): number {
    if (this.#refusal !== undefined) throw this.#refusal;
    this.#paused = false;
    try {
      return this.#read(chunk, from);
    } catch (error) {
      this.#refusal = error;
      throw error;
    }
  }

  /** The client sends nothing more. Throws an {@link HttpRefusal} when that is within a request. */
  finish(): void {
    if (this.#refusal !== undefined || this.idle) return;
    this.#refusal = new HttpRefusal('request', 'incomplete');
    throw this.#refusal;
  }

  #read(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && !this.#paused) {
      switch (this.#phase) {
        case 'before':
          at = this.#beforeHead(chunk, at);
          break;
        case 'empty-line':
          if (chunk[at] !== LF) throw new HttpRefusal('request', 'line-end');
          at++;
          this.#phase = 'before';
          break;
        case 'head': {
          const end = this.#scanner.push(chunk, at);
          if (end < 0) return chunk.length;
          at = end;
          this.#head();
          break;
        }
        case 'body':
          at = this.#body.read(chunk, at, this.#content);
          if (this.#body.done) this.#end();
          break;
        default:
          return at;
      }
    }
    return at;
  }

  /** One empty line before a request is allowed: old clients send it after a body (RFC 9112, 2.2). */
  #beforeHead(chunk: Uint8Array, at: number): number {
    if (chunk[at] !== CR || !this.#mayBeEmptyLine) {
      this.#phase = 'head';
      return at;
    }
    this.#mayBeEmptyLine = false;
    this.#phase = 'empty-line';
    return at + 1;
  }

  #head(): void {
    const head = requestHead(this.#scanner, this.#limits);
    // Lets go of the text: an idle connection holds none.
    this.#scanner.begin();
    this.#last = !head.keepAlive || head.method === 'CONNECT';
    this.#body.begin(head.framing);
    this.#phase = 'body';
    this.#sink.head(head);
    if (this.#body.done) this.#end();
  }

  readonly #content = (piece: Uint8Array): void => this.#sink.content(piece);

  #end(): void {
    this.#phase = 'done';
    this.#sink.end(this.#body.trailers);
  }
}
