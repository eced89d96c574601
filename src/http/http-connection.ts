import type { Fields } from '../http1/fields.ts';
import { HttpRefusal } from '../http1/refusal.ts';
import type { RequestHead } from '../http1/request-head.ts';
import { RequestParser } from '../http1/request-parser.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { DenseSetMember } from '../model/dense-set.ts';
import type { RequestSink } from '../model/request.ts';
import type { Instance } from '../model/service.ts';
import type { CallerView } from '../policy/match/request-view.ts';
import type { Carrier, ConnectionEntry } from '../proxy/connections.ts';
import type { Origin } from '../proxy/origin.ts';
import type { Begun } from '../proxy/protocols.ts';
import { Relay } from '../proxy/relay.ts';
import { reasonOf } from '../proxy/search.ts';
import type { SearchTarget } from '../proxy/seeker.ts';
import { Silence } from '../proxy/silence.ts';
import type { CallerExchange } from './caller-exchange.ts';
import { CONNECTED, ConnectExchange } from './connect-exchange.ts';
import { Exchange } from './exchange.ts';
import type { ExchangeDependencies, ExchangeOwner, SwitchedEnd } from './exchange-owner.ts';
import { lastAnswer } from './last-answer.ts';
import { MessageWriter } from './message-writer.ts';
import { RequestJournal } from './request-journal.ts';
import { IDLE_MS, STREAM_SILENCE_MS } from './silence.ts';
import { type Aim, OneTarget, type Refused, type RequestTargets, refused } from './targets.ts';

/** What a caller sends behind our last answer is read and dropped up to this: a reset could cost it the answer. */
const MAX_DISCARDED = 16 << 20;

export interface HttpConnectionDependencies extends ExchangeDependencies {
  readonly requests: RequestSink;
  /** For requests that go to a place outside of the mesh. */
  readonly outside: ExchangeDependencies;
  /** No connection is kept for further requests. */
  readonly draining: boolean;
  /** The same target as the newest catalogue has it; undefined when that would take its connections elsewhere. */
  current(target: SearchTarget): SearchTarget | undefined;
  /** The connection is over. */
  closed(connection: HttpConnection): void;
}

/**
 * A caller's connection: its requests, one after the other. The next one of a pipeline is looked at when the answer
 * before is complete, so answers are in order by themselves and the caller is slowed down meanwhile.
 *
 * `serving` → `closing` (our last answer is written, the other half is waited for) → `over`, and `serving` → `switched`.
 */
export class HttpConnection implements ChannelHandler, ExchangeOwner, Carrier, DenseSetMember {
  place = -1;
  readonly client: Channel;
  readonly requests = new MessageWriter();
  readonly answers = new MessageWriter();
  origin: Origin;
  reading = false;
  readonly #entry: ConnectionEntry;
  readonly #deps: HttpConnectionDependencies;
  #targets: RequestTargets;
  /** Of the request under way. */
  #aim: Aim | undefined;
  #parser: RequestParser;
  #state: 'serving' | 'closing' | 'switched' | 'over' = 'serving';
  #exchange: CallerExchange | undefined;
  /** A request whose way is being asked for: no more is read, and its end waits, which may be told already (`complete`). */
  #undecided: { readonly journal: RequestJournal; complete: boolean } | undefined;
  #count = 0;
  /** Bytes of the next request, of one read at most: the caller is paused. */
  #rest: Uint8Array | undefined;
  #clientEnded = false;
  #opened: Instance | undefined;
  #received = 0;
  #discarded = 0;
  #relay: Relay | undefined;
  readonly #silence = new Silence();
  /** Bound on silence after another protocol was switched to, in ms; 0: none. */
  #switchedSilence = 0;

  constructor(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    targets: RequestTargets,
    dependencies: HttpConnectionDependencies,
  ) {
    this.client = client;
    this.origin = origin;
    this.#targets = targets;
    this.#entry = entry;
    this.#deps = dependencies;
    this.#parser = this.#newParser();
    client.handler = this;
    entry.relay = this;
    entry.judged = 'requests';
    entry.abort = (end) => {
      this.client.reset(resetCode(end.reason));
      this.#finish(end.reason, end.detail);
    };
  }

  #newParser(): RequestParser {
    return new RequestParser({
      head: (head) => this.#begin(head),
      content: (piece) => this.#exchange?.requestContent(piece),
      end: (trailers: Fields | undefined) => {
        if (this.#undecided === undefined) this.#exchange?.requestEnd(trailers);
        else this.#undecided.complete = true;
      },
    });
  }

  /** Reads the first request. `opened`: an instance to which a way was opened meanwhile, for that request. */
  start(begun?: Begun, opened?: Instance): void {
    this.#opened = opened;
    this.client.resume();
    if (begun === undefined) return;
    // As if it came now.
    for (const bytes of begun.bytes) this.data(bytes);
    if (begun.ended) this.end();
  }

  takeOpened(): Instance | undefined {
    const opened = this.#opened;
    this.#opened = undefined;
    return opened;
  }

  /** Of the request under way. */
  get target(): SearchTarget {
    return this.#aim!.target;
  }

  get bytesSent(): number {
    return this.#received + (this.#relay?.bytesSent ?? 0);
  }

  get bytesReceived(): number {
    return this.answers.written + (this.#relay?.bytesReceived ?? 0);
  }

  /** True when exactly one side has said that it is finished. */
  get halfClosed(): boolean {
    return this.#relay?.halfClosed ?? this.#clientEnded !== (this.#state === 'closing');
  }

  get stays(): boolean {
    return !this.#deps.draining && !this.#targets.outdated;
  }

  /** Who calls, as policies see it. */
  get caller(): CallerView {
    const { callerService: service, callerNode: node } = this.#entry.start;
    const { program, address } = this.origin;
    return { service, node, program, address: address?.ip };
  }

  /** Looks whether anything has been said of late, and ends what was silent for too long. */
  look(now: number): void {
    const said = this.bytesSent + this.bytesReceived - this.client.pendingBytes;
    const silence = this.#silence.at(now, said);
    const most = this.#mostSilence;
    if (most === 0 || silence < most) return;
    if (this.#exchange !== undefined) this.#exchange.silent();
    else if (this.#state === 'serving') this.#close();
    else {
      this.#entry.abort({ reason: 'timeout', detail: 'no byte went either way for too long' });
    }
  }

  /** In ms; 0: any. */
  get #mostSilence(): number {
    if (this.#state === 'switched') return this.#switchedSilence;
    // Whoever has ended, and takes nothing of its last answer, is not half-closed.
    if (this.#state === 'closing') return IDLE_MS;
    if (this.#exchange !== undefined) return this.#exchange.silence ?? STREAM_SILENCE_MS;
    if (this.#undecided !== undefined) return 0;
    const service = this.#aim?.target.service.name;
    return (service === undefined ? undefined : this.#deps.policy(service).timeouts?.idle) ?? IDLE_MS;
  }

  /** No further request is waited for. One that has begun is finished, and a new connection gets its first one. */
  leave(): void {
    const waits = this.#count > 0 && !this.#busy && this.#parser.idle;
    if (this.#state === 'serving' && waits) this.#close();
  }

  // The caller's side.

  data(bytes: Uint8Array): void {
    this.#received += bytes.length;
    if (this.#state !== 'serving') this.#discard(bytes.length);
    else if (this.#rest === undefined) this.#read(bytes, false);
    else this.#rest = Buffer.concat([this.#rest, bytes]);
  }

  end(): void {
    this.#clientEnded = true;
    if (this.#state === 'serving' && this.#rest === undefined) this.#endOfRequests();
  }

  drain(): void {
    this.answers.blocked = false;
    this.#exchange?.callerDrained();
  }

  close(why: ChannelClose): void {
    this.#finish(why.reason === 'reset' ? 'client-reset' : reasonOf(why), why.detail);
  }

  /** Reads requests as far as their turn has come. `kept`: the bytes are our own already. */
  #read(bytes: Uint8Array, kept: boolean): void {
    let at = 0;
    this.reading = true;
    try {
      while (at < bytes.length && this.#mayRead()) at = this.#parser.push(bytes, at);
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#refuse(error);
      return;
    } finally {
      this.reading = false;
    }
    this.#exchange?.requestRead();
    if (this.#undecided !== undefined) this.client.pause();
    if (at === bytes.length || this.#state !== 'serving') return;
    this.#rest = kept ? bytes.subarray(at) : Uint8Array.prototype.slice.call(bytes, at);
    this.client.pause();
  }

  /** A request is under way. */
  get #busy(): boolean {
    return this.#exchange !== undefined || this.#undecided !== undefined;
  }

  #mayRead(): boolean {
    if (this.#state !== 'serving' || this.#undecided !== undefined) return false;
    if (!this.#parser.done) return true;
    if (this.#exchange !== undefined) return false;
    if (this.#parser.next()) return true;
    this.#close();
    return false;
  }

  #begin(head: RequestHead): void {
    const { callerProgram } = this.#entry;
    // Known by now, perhaps.
    if (callerProgram !== this.origin.program) {
      this.origin = { address: this.origin.address, program: callerProgram };
    }
    const journal = new RequestJournal(this.#deps.requests, this.#entry, ++this.#count, head);
    const aim = this.#targets.of(head);
    if (!(aim instanceof Promise)) {
      this.#go(head, journal, aim);
      return;
    }
    this.#undecided = { journal, complete: false };
    this.#parser.pause();
    void aim.then((decided) => this.#decided(head, journal, decided));
  }

  /** It is known where a request goes. */
  #go(head: RequestHead, journal: RequestJournal, aim: Aim | Refused): void {
    if (aim.kind === 'refused') {
      journal.service = undefined;
      this.#answer(head, journal, aim);
      return;
    }
    this.#aim = aim;
    const { service } = aim.target;
    journal.service = aim.outside ? undefined : service.name;
    const dependencies = aim.outside ? this.#deps.outside : this.#deps;
    if (head.method === 'CONNECT' && this.#targets.tunnels) {
      this.#entry.service = journal.service;
      if (service.protocol === 'http' && !aim.outside) {
        this.#enter(journal, aim.target);
        return;
      }
      // The tunnel is a connection like any other to that service.
      const limit = dependencies.overRate?.(this.#entry);
      if (limit !== undefined) {
        this.#answer(head, journal, refused(429, 'rate-limit', `rate limit: ${limit}`));
        return;
      }
      const exchange = new ConnectExchange(journal, this, dependencies);
      this.#exchange = exchange;
      exchange.begin();
      return;
    }
    const exchange = new Exchange(head, journal, this, dependencies);
    this.#exchange = exchange;
    exchange.begin();
  }

  /** Answers a request that goes nowhere. */
  #answer(head: RequestHead, journal: RequestJournal, { status, reason, detail }: Refused): void {
    const exchange = new Exchange(head, journal, this, this.#deps);
    this.#exchange = exchange;
    exchange.refuse(status, reason, detail);
  }

  /** As {@link #go}, of a request whose way was asked for; the connection may be over by now. */
  #decided(head: RequestHead, journal: RequestJournal, aim: Aim | Refused): void {
    if (this.#state !== 'serving') return;
    const { complete } = this.#undecided!;
    this.#undecided = undefined;
    this.reading = true;
    this.#go(head, journal, aim);
    if (complete) this.#exchange?.requestEnd(undefined);
    this.reading = false;
    this.#exchange?.requestRead();
    // What came behind the head, and the next request if this one is over already.
    if (this.#exchange === undefined || !complete) this.#continue();
  }

  /**
   * A tunnel to a service that speaks HTTP: what comes through it is read like any connection to that service, so that the
   * same holds for its requests. Each of them is answered by itself, also where nobody can be reached.
   */
  #enter(journal: RequestJournal, target: SearchTarget): void {
    journal.status = 200;
    this.answers.begin(this.client, CONNECTED, false);
    this.answers.flush();
    journal.finish('done', undefined);
    this.#targets = new OneTarget(target, (of) => this.#deps.current(of));
    this.#parser = this.#newParser();
  }

  #endOfRequests(): void {
    try {
      this.#parser.finish();
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#refuse(error);
      return;
    }
    if (!this.#busy) this.#close();
  }

  /** Nobody knows where the next request would begin: the caller is told why, and no more is read. */
  #refuse(refusal: HttpRefusal): void {
    if (this.#exchange !== undefined) {
      this.#exchange.requestRefused(refusal);
      return;
    }
    if (this.#state !== 'serving') return;
    const journal =
      this.#undecided?.journal ??
      new RequestJournal(this.#deps.requests, this.#entry, ++this.#count, undefined);
    this.#undecided = undefined;
    lastAnswer(this, journal, refusal.status, refusal.reason, refusal.message);
    this.#close();
  }

  // What exchanges say.

  over(keep: boolean): void {
    this.#exchange = undefined;
    if (!keep || !this.stays) this.#close();
    else if (!this.reading) this.#continue();
  }

  broken(reason: EndReason, detail: string | undefined): void {
    this.#exchange = undefined;
    this.client.reset(resetCode(reason));
    this.#finish(reason, detail);
  }

  switched(upstream: Channel, rest: Uint8Array, ended: SwitchedEnd, silence = 0): void {
    const { client } = this;
    const early = this.#rest;
    this.#state = 'switched';
    this.#switchedSilence = silence;
    this.#exchange = undefined;
    this.#rest = undefined;
    this.answers.flush();
    const relay = new Relay(client, upstream, ({ reason, detail }) => {
      ended(reason, detail, { sent: relay.bytesSent, received: relay.bytesReceived });
      this.#finish(reason, detail);
    });
    this.#relay = relay;
    this.#entry.abort = (end) => relay.abort(end);
    // As if they came now: counted, and with the reader's pace.
    client.resume();
    upstream.resume();
    if (rest.length > 0) upstream.handler.data(rest);
    if (early !== undefined) {
      this.#received -= early.length;
      client.handler.data(early);
    }
    if (this.#clientEnded) client.handler.end();
  }

  /** The next request, of which something may be here already. */
  #continue(): void {
    const rest = this.#rest;
    this.#rest = undefined;
    if (rest !== undefined) this.#read(rest, true);
    if (this.#state !== 'serving' || this.#rest !== undefined) return;
    if (this.#clientEnded) this.#endOfRequests();
    else this.client.resume();
  }

  /** Ends our half. The other one is read until its end, so that no reset overtakes the answer. */
  #close(): void {
    if (this.#state !== 'serving') return;
    this.#state = 'closing';
    this.#rest = undefined;
    this.client.end();
    this.client.resume();
  }

  #discard(length: number): void {
    this.#discarded += length;
    // The sweep of half-closed connections ends it then.
    if (this.#discarded > MAX_DISCARDED) this.client.pause();
  }

  #finish(reason: EndReason, detail: string | undefined): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#exchange?.abandon(reason, detail);
    this.#exchange = undefined;
    this.#undecided?.journal.finish(reason, detail);
    this.#undecided = undefined;
    this.requests.clear();
    this.#entry.finish(reason, detail);
    this.#deps.closed(this);
  }
}
