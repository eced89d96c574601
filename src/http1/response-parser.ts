import { BodyReader } from './body-reader.ts';
import { headScanner } from './head-scanner.ts';
import { DEFAULT_LIMITS, type Http1Limits, MAX_INTERIM } from './limits.ts';
import type { MessageSink } from './message-sink.ts';
import { HttpRefusal } from './refusal.ts';
import { type Asked, type ResponseHead, responseHead } from './response-head.ts';
import type { SectionScanner } from './section-scanner.ts';

/**
 * Reads answers from the bytes of a connection, each after `begin` said what it answers. Interim answers come as heads
 * of their own, without an end. After a switch of protocols it stops behind the head: what follows is not HTTP.
 */
export class ResponseParser {
  readonly #sink: MessageSink<ResponseHead>;
  readonly #scanner: SectionScanner;
  readonly #body: BodyReader;
  #phase: 'idle' | 'head' | 'body' | 'opaque' | 'spent' = 'idle';
  /** Why nothing is read any more. */
  #refusal: unknown;
  #asked: Asked | undefined;
  #interim = 0;
  #keepAlive = false;
  #untilClose = false;
  #paused = false;

  constructor(sink: MessageSink<ResponseHead>, limits: Http1Limits = DEFAULT_LIMITS) {
    this.#sink = sink;
    this.#scanner = headScanner('response', limits);
    this.#body = new BodyReader('response', limits);
  }

  /**
   * Another request may be sent: the last answer is complete, allows it, and nothing came behind it. To be asked when
   * the end was told; what came behind an answer is never taken for the next one (RFC 9112, 6.3).
   */
  get reusable(): boolean {
    return this.#phase === 'idle';
  }

  /** The connection carries another protocol now; `push` takes nothing. */
  get opaque(): boolean {
    return this.#phase === 'opaque';
  }

  /** A byte of the answer has come, the head of an interim one included. */
  get begun(): boolean {
    if (this.#phase === 'head') return this.#interim > 0 || this.#scanner.begun;
    return this.#phase !== 'idle';
  }

  /** The next bytes answer this request. */
  begin(asked: Asked): void {
    if (!this.reusable) throw new Error('this connection takes no request now');
    this.#asked = asked;
    this.#interim = 0;
    this.#untilClose = false;
    this.#phase = 'head';
  }

  /**
   * The running `push` ends after the event that is being told (and the end that follows a head without content at once);
   * push what it did not take again, later.
   */
  pause(): void {
    this.#paused = true;
  }

  /**
   * Reads `chunk` from `from` on. Returns the index after what was taken: all of it, unless the protocol was switched,
   * `pause` was called, or bytes came behind the answer. Throws an {@link HttpRefusal}, also for bytes that come later
   * without having been asked for; the connection cannot be read any further then.
   */
  push(chunk: Uint8Array, from = 0): number {
    if (this.#refusal !== undefined) throw this.#refusal;
    this.#paused = false;
    try {
      return this.#read(chunk, from);
    } catch (error) {
      this.#phase = 'spent';
      this.#refusal = error;
      throw error;
    }
  }

  /** The server sends nothing more. Ends content that goes on until then; throws within any other answer. */
  finish(): void {
    const within = this.#phase === 'head' || this.#phase === 'body';
    const untilClose = this.#phase === 'body' && this.#untilClose;
    if (this.#phase !== 'opaque') this.#phase = 'spent';
    if (!within) return;
    if (!untilClose) {
      this.#refusal = new HttpRefusal('response', 'incomplete');
      throw this.#refusal;
    }
    this.#sink.end(undefined);
  }

  #read(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && !this.#paused) {
      switch (this.#phase) {
        case 'head': {
          const end = this.#scanner.push(chunk, at);
          if (end < 0) return chunk.length;
          at = end;
          this.#head(at < chunk.length);
          break;
        }
        case 'body':
          at = this.#body.read(chunk, at, this.#content);
          if (this.#body.done) this.#end(at < chunk.length);
          break;
        case 'opaque':
        case 'spent':
          return at;
        default:
          throw new HttpRefusal('response', 'unasked-response');
      }
    }
    return at;
  }

  /** `more`: bytes of the chunk are left. */
  #head(more: boolean): void {
    const head = responseHead(this.#scanner, this.#asked!);
    // Lets go of the text: an idle connection holds none.
    this.#scanner.begin();
    if (head.interim) {
      if (!head.keepAlive) throw new HttpRefusal('response', 'interim-last');
      if (++this.#interim > MAX_INTERIM) throw new HttpRefusal('response', 'too-many-interim');
      this.#sink.head(head);
      return;
    }
    this.#keepAlive = head.keepAlive;
    this.#untilClose = head.framing.kind === 'close';
    this.#phase = head.framing.kind === 'opaque' ? 'opaque' : 'body';
    this.#body.begin(head.framing);
    this.#sink.head(head);
    if (this.#body.done) this.#end(more);
  }

  readonly #content = (piece: Uint8Array): void => this.#sink.content(piece);

  #end(more: boolean): void {
    if (this.#phase === 'body') this.#phase = this.#keepAlive && !more ? 'idle' : 'spent';
    this.#sink.end(this.#body.trailers);
  }
}
