import type { AccessRequest } from '../access/rules.ts';
import { requestHeadText, trailerLines } from '../http1/head-writer.ts';
import { DEFAULT_LIMITS, type Http1Limits } from '../http1/limits.ts';
import { HttpRefusal } from '../http1/refusal.ts';
import type { RequestHead } from '../http1/request-head.ts';
import { RequestParser } from '../http1/request-parser.ts';
import { ResponseParser } from '../http1/response-parser.ts';
import { type Channel, type ChannelClose, type ChannelHandler, noHandler } from '../io/channel.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { RequestEndReason } from '../model/request.ts';
import { localAnswerText } from './local-answer.ts';
import { MessageWriter } from './message-writer.ts';

/** What the caller's agent took, and the fields and the path that it may have put in by itself. */
const LIMITS: Http1Limits = {
  ...DEFAULT_LIMITS,
  startLine: 2 * DEFAULT_LIMITS.startLine,
  head: 2 * DEFAULT_LIMITS.head,
  fields: 2 * DEFAULT_LIMITS.fields,
};
/** Content of a denied request that is read and dropped, so that another one may follow it. */
const MAX_DISCARDED = 16 << 20;

/** What the guard asks, and tells. */
export interface GuardOwner {
  /** Why this request is denied, for people; undefined: it goes on. Asked once for each, in their order. */
  denial(request: AccessRequest): string | undefined;
  /** The connection carries another protocol from now on, as this request asked for: nothing is read any more. */
  switched(request: AccessRequest): void;
}

/**
 * The channel to an instance, with somebody before it who reads the requests that are written to it. Each goes on, written
 * anew, when it has been allowed; one that is denied is answered 403 here, in its turn. One at a time: the next is not
 * looked at before the answer is complete, so answers are in order, and nothing is passed on that nobody has read.
 * Answers are read to find their ends, and passed on as they are.
 */
export class RequestGuard implements Channel {
  handler: ChannelHandler = noHandler;
  readonly #inner: Channel;
  readonly #host: string;
  readonly #owner: GuardOwner;
  readonly #parser: RequestParser;
  readonly #answers: ResponseParser;
  readonly #requests = new MessageWriter();
  /** The request under way. */
  #request: AccessRequest | undefined;
  #denied = false;
  #requestDone = false;
  #answerDone = false;
  /** What came cannot be read. */
  #refused = false;
  /** Nothing follows what is under way. */
  #last = false;
  /** What waits for its turn. */
  #rest: Uint8Array | undefined;
  /** Our own answer, until the reader takes it. */
  #own: Uint8Array | undefined;
  #discarded = 0;
  #paused = true;
  #ended = false;
  /** `switched`: bytes of another protocol pass. `leaving`: no more is read or sent. */
  #state: 'reading' | 'switched' | 'leaving' | 'over' = 'reading';
  #endTold = false;

  /** `host`: for a request that names none (HTTP/1.0). */
  constructor(inner: Channel, host: string, owner: GuardOwner) {
    this.#inner = inner;
    this.#host = host;
    this.#owner = owner;
    this.#parser = new RequestParser(
      {
        head: (head) => this.#begin(head),
        content: (piece) => this.#content(piece),
        end: (trailers) => {
          this.#requestDone = true;
          if (!this.#denied) this.#requests.end(trailers === undefined ? '' : trailerLines(trailers, {}));
        },
      },
      LIMITS,
    );
    this.#answers = new ResponseParser({
      head: () => {},
      content: () => {},
      end: () => {
        this.#answerDone = true;
      },
    });
    inner.handler = {
      open: () => this.handler.open?.(),
      data: (bytes, more) => this.#answered(bytes, more),
      end: () => this.#instanceEnded(),
      drain: () => this.#drained(),
      close: (why) => this.#closed(why),
    };
  }

  get pendingBytes(): number {
    return this.#inner.pendingBytes + (this.#rest?.length ?? 0);
  }

  // Towards the instance.

  write(bytes: Uint8Array, more?: boolean): boolean {
    if (this.#ended) return true;
    switch (this.#state) {
      case 'reading':
        if (this.#rest === undefined) return this.#read(bytes);
        this.#rest = Buffer.concat([this.#rest, bytes]);
        return false;
      case 'switched':
        return this.#inner.write(bytes, more);
      default:
        return true;
    }
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#state === 'switched') this.#inner.end();
    else if (this.#state === 'reading') this.#settle();
  }

  reset(code?: ErrorCode): void {
    this.#inner.reset(code);
  }

  pause(): void {
    this.#paused = true;
    if (this.#state !== 'leaving') this.#inner.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#inner.resume();
    if (this.#own !== undefined) this.#deliverSoon();
  }

  /** Reads as far as its turn has come; true: write more. */
  #read(bytes: Uint8Array): boolean {
    let at = 0;
    try {
      while (at < bytes.length && this.#mayRead()) at = this.#parser.push(bytes, at);
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#refuse(error);
      return true;
    }
    if (this.#state !== 'reading') return true;
    if (!this.#denied) this.#requests.flush();
    if (at < bytes.length && !this.#last) this.#rest = Uint8Array.prototype.slice.call(bytes, at);
    this.#settle();
    // Who waits for nothing more is not told of room either.
    return this.#state !== 'reading' || (this.#rest === undefined && !this.#requests.blocked);
  }

  #mayRead(): boolean {
    if (this.#state !== 'reading' || this.#refused) return false;
    if (!this.#parser.done) return true;
    return this.#request === undefined && !this.#last && this.#parser.next();
  }

  #begin(head: RequestHead): void {
    const request = { method: head.method, path: head.path };
    const denial =
      head.method === 'CONNECT'
        ? 'CONNECT, which rules about requests cannot see into'
        : this.#owner.denial(request);
    this.#request = request;
    this.#requestDone = false;
    this.#answerDone = false;
    this.#denied = denial !== undefined;
    this.#last = !head.keepAlive;
    if (denial !== undefined) {
      // Nobody knows whether the content of a request that waits for a word will come.
      if (head.expectsContinue || head.method === 'CONNECT') this.#last = true;
      this.#answer(403, 'denied', denial, head.method === 'HEAD');
      return;
    }
    // Of other protocols (h2c) nobody here would read the requests.
    const upgrade = head.upgrade?.toLowerCase() === 'websocket' ? head.upgrade : undefined;
    this.#answers.begin({ method: head.method, upgrade });
    const text = requestHeadText(head, {
      upgrade: upgrade !== undefined,
      close: this.#last,
      ...(head.authority === '' ? { authority: this.#host } : {}),
    });
    this.#requests.begin(this.#inner, text, head.framing.kind === 'chunked');
  }

  #content(piece: Uint8Array): void {
    if (!this.#denied) this.#requests.content(piece);
    else {
      this.#discarded += piece.length;
      if (this.#discarded > MAX_DISCARDED) this.#last = true;
    }
  }

  /** Nobody knows where the next request would begin. */
  #refuse({ status, reason, message }: HttpRefusal): void {
    if (this.#request !== undefined) {
      this.#fail(message);
      return;
    }
    this.#request = { method: '', path: '' };
    this.#refused = true;
    this.#denied = true;
    this.#last = true;
    this.#answer(status, reason, message, false);
  }

  /** What comes when something is complete: the next request, or the end. */
  #settle(): void {
    if (this.#state !== 'reading') return;
    if (this.#request !== undefined) {
      const brokenOff = this.#ended && !this.#requestDone && this.#rest === undefined;
      if (brokenOff && !this.#denied && !this.#answerDone) {
        this.#fail('the caller ended within a request');
        return;
      }
      this.#last ||= brokenOff;
      // The rest of a denied request is not waited for when nothing follows it.
      const waits = !this.#requestDone && !brokenOff && !(this.#denied && this.#last);
      if (waits || !this.#answerDone) return;
      this.#request = undefined;
      this.#denied = false;
      this.#discarded = 0;
      // Nor does anything follow an answer that was the instance's last.
      if (this.#last || !this.#answers.reusable) {
        this.#leave();
        return;
      }
    }
    const rest = this.#rest;
    this.#rest = undefined;
    if (rest !== undefined) {
      if (this.#read(rest)) this.handler.drain();
    } else if (this.#ended) this.#endOfRequests();
  }

  #endOfRequests(): void {
    if (this.#parser.idle) this.#inner.end();
    else this.#fail('the caller ended within a request');
  }

  // An answer of our own.

  #answer(status: number, reason: RequestEndReason, detail: string, withoutContent: boolean): void {
    const connection = this.#last ? 'close' : undefined;
    const { head, content } = localAnswerText({ status, reason, detail, withoutContent, connection });
    this.#own = Buffer.from(head + content, 'latin1');
    this.#deliverSoon();
  }

  /** Not within a call of the reader's. */
  #deliverSoon(): void {
    queueMicrotask(() => {
      const own = this.#own;
      if (own === undefined || this.#paused || this.#state !== 'reading') return;
      this.#own = undefined;
      this.handler.data(own);
      this.#answerDone = true;
      this.#settle();
    });
  }

  #leave(): void {
    this.#state = 'leaving';
    this.#rest = undefined;
    this.#inner.end();
    // Its end is waited for, whatever the reader takes by now.
    this.#inner.resume();
    this.#tellEnd();
    this.handler.drain();
  }

  #fail(detail: string): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#requests.clear();
    this.#inner.reset('protocol');
    // As every channel does: not within a call of its owner.
    queueMicrotask(() =>
      this.handler.close({ reason: 'protocol', delivered: true, source: 'callee', detail }),
    );
  }

  #tellEnd(): void {
    if (this.#endTold) return;
    this.#endTold = true;
    this.handler.end();
  }

  // From the instance.

  /** Nothing more comes of it: who is being answered has all of it, or as much as there will be. */
  #instanceEnded(): void {
    if (this.#state !== 'reading' || this.#request === undefined) this.#tellEnd();
    else if (this.#denied) this.#last = true;
    else this.#leave();
  }

  #answered(bytes: Uint8Array, more: boolean | undefined): void {
    if (this.#state === 'switched') this.handler.data(bytes, more);
    else if (this.#state === 'reading') this.#readAnswer(bytes, more);
    else this.#inner.reset('protocol');
  }

  #readAnswer(bytes: Uint8Array, more: boolean | undefined): void {
    if (this.#request === undefined || this.#denied) {
      this.#fail('the instance said something that nobody asked for');
      return;
    }
    let taken: number;
    try {
      taken = this.#answers.push(bytes);
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#fail(error.message);
      return;
    }
    if (this.#answers.opaque) {
      this.#switch(bytes);
      return;
    }
    this.handler.data(taken === bytes.length ? bytes : bytes.subarray(0, taken), more);
    if (taken < bytes.length) this.#fail('the instance said more than its answer');
    else if (this.#answerDone) this.#settle();
  }

  #switch(bytes: Uint8Array): void {
    this.#state = 'switched';
    this.#owner.switched(this.#request!);
    const rest = this.#rest;
    this.#rest = undefined;
    this.handler.data(bytes);
    if (rest !== undefined && this.#inner.write(rest)) this.handler.drain();
    if (this.#ended) this.#inner.end();
  }

  #drained(): void {
    this.#requests.blocked = false;
    if (this.#rest === undefined) this.handler.drain();
  }

  #closed(why: ChannelClose): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#requests.clear();
    this.handler.close(why);
  }
}
