import type { Fields } from '../http1/fields.ts';
import { HttpRefusal } from '../http1/refusal.ts';
import type { Asked, ResponseHead } from '../http1/response-head.ts';
import { ResponseParser } from '../http1/response-parser.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { ConnectionPath } from '../model/connection.ts';
import type { Instance, ServiceName } from '../model/service.ts';
import type { AgentStream } from '../proxy/outbound-dependencies.ts';

/** The request that an upstream channel carries. */
export interface UpstreamUser {
  /** Heads of interim answers, and of the answer itself. */
  answerHead(head: ResponseHead): void;
  /** A piece of the content; a view that is valid until `answerRead`. */
  answerContent(piece: Uint8Array): void;
  /** The answer is complete. */
  answerEnd(trailers: Fields | undefined): void;
  /** What was told since the last call is all for now. */
  answerRead(): void;
  /** The upstream takes more of the request. */
  upstreamDrained(): void;
  /** The answer breaks a rule; the channel has been reset. */
  upstreamRefused(refusal: HttpRefusal): void;
  /** The channel brings no more of an answer, or takes no more of the request. `begun`: a byte of the answer had come. */
  upstreamLost(why: ChannelClose, begun: boolean): void;
  /** The protocol was switched; `rest` are its first bytes, valid during this call. */
  upstreamSwitched(rest: Uint8Array): void;
}

/** Who keeps upstream channels that carry no request. */
export interface UpstreamKeeper {
  /** It cannot be used any more. */
  lost(upstream: Upstream): void;
}

/** How an upstream channel came about, and who may use it. */
export interface UpstreamStart {
  readonly channel: Channel;
  readonly agent: AgentStream | undefined;
  readonly path: ConnectionPath;
  readonly service: ServiceName;
  readonly instance: Instance;
  /** Callers for whom it may be used again: what the other end was told of the first one is true of them. */
  readonly share: string;
}

/** A channel to an instance, with one request at a time on it, and the reading of its answers. */
export class Upstream implements ChannelHandler {
  readonly start: UpstreamStart;
  /** How long the server keeps it open without a request, in seconds, where its first answer said so. */
  keptFor: number | undefined;
  /** When it is given up, on the clock of `performance.now()`; its keeper's. */
  until = 0;
  /** The catalogue in which its instance was found last, by its keeper's count. */
  wantedSince = -1;
  /** It has carried a request before. */
  reused = false;
  readonly #keeper: UpstreamKeeper;
  readonly #parser: ResponseParser;
  #user: UpstreamUser | undefined;
  #ended = false;

  constructor(start: UpstreamStart, keeper: UpstreamKeeper) {
    this.start = start;
    this.#keeper = keeper;
    this.#parser = new ResponseParser({
      head: (head) => {
        if (!this.reused && !head.interim) this.keptFor = keepAliveTimeout(head);
        this.#user?.answerHead(head);
      },
      content: (piece) => this.#user?.answerContent(piece),
      end: (trailers) => this.#user?.answerEnd(trailers),
    });
    start.channel.handler = this;
  }

  get channel(): Channel {
    return this.start.channel;
  }

  /** Another request may follow: the answer is complete, and the connection stays. */
  get reusable(): boolean {
    return this.#parser.reusable && !this.#ended;
  }

  /** From now on it is this request's. */
  begin(user: UpstreamUser, asked: Asked): void {
    this.#parser.begin(asked);
    this.#user = user;
  }

  /** What is left of the answer is told to somebody else. */
  handOver(user: UpstreamUser): void {
    this.#user = user;
  }

  /** The request is over; nobody is told anything but its keeper. */
  release(): void {
    this.#user = undefined;
    this.reused = true;
  }

  data(bytes: Uint8Array): void {
    const user = this.#user;
    if (user === undefined) {
      // Nobody asked: what is said now must not become the answer to what is asked next.
      this.#discard();
      return;
    }
    let taken: number;
    try {
      taken = this.#parser.push(bytes);
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      const told = this.#user;
      this.#user = undefined;
      this.channel.reset('protocol');
      told?.upstreamRefused(error);
      return;
    }
    if (this.#parser.opaque && this.#user === user) user.upstreamSwitched(bytes.subarray(taken));
    else user.answerRead();
  }

  end(): void {
    this.#ended = true;
    const user = this.#user;
    if (user === undefined) {
      this.#keeper.lost(this);
      this.channel.end();
      return;
    }
    const { begun } = this.#parser;
    try {
      this.#parser.finish();
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#user = undefined;
      this.channel.reset();
      user.upstreamLost({ reason: 'reset', delivered: true, detail: error.message }, begun);
      return;
    }
    if (this.#user !== user) return;
    // The answer is complete, the request is not: nobody reads the rest of it.
    this.#user = undefined;
    this.channel.end();
    user.upstreamLost({ reason: 'done', delivered: true }, true);
  }

  drain(): void {
    this.#user?.upstreamDrained();
  }

  close(why: ChannelClose): void {
    this.#ended = true;
    const user = this.#user;
    this.#user = undefined;
    if (user === undefined) this.#keeper.lost(this);
    else user.upstreamLost(why, this.#parser.begun);
  }

  #discard(): void {
    this.#keeper.lost(this);
    this.channel.reset('protocol');
  }
}

/** `Keep-Alive: timeout=5` (RFC 2068, 19.7.1.1), in seconds. */
function keepAliveTimeout({ fields }: ResponseHead): number | undefined {
  const value = fields.get('keep-alive');
  const match = value === undefined ? null : /(?:^|[, ;])timeout="?(\d{1,6})/i.exec(value);
  return match === null ? undefined : Number(match[1]);
}
