import type { Fields } from '../http1/fields.ts';
import { CHUNKED, type Framing, isEmpty, UNTIL_CLOSE } from '../http1/framing.ts';
import {
  type ResponseChanges,
  requestHeadText,
  responseHeadText,
  trailerLines,
} from '../http1/head-writer.ts';
import type { HttpRefusal } from '../http1/refusal.ts';
import type { RequestHead } from '../http1/request-head.ts';
import type { ResponseHead } from '../http1/response-head.ts';
import type { Channel, ChannelClose } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { RequestEndReason } from '../model/request.ts';
import type { Instance, Service } from '../model/service.ts';
import type { OpenedPath, PickToken } from '../proxy/outbound-dependencies.ts';
import {
  type FoundUpstream,
  type ReusedUpstream,
  type SearchScope,
  type Seeker,
  UpstreamSearch,
} from '../proxy/search.ts';
import type { CallerExchange } from './caller-exchange.ts';
import type { ExchangeDependencies, ExchangeOwner } from './exchange-owner.ts';
import { forwarding, isLoop } from './forwarding.ts';
import { failureStatus, localAnswerText } from './local-answer.ts';
import type { RequestJournal } from './request-journal.ts';
import { Upstream, type UpstreamUser } from './upstream.ts';
import { shareOf } from './upstream-pool.ts';

/** Methods of which doing it twice is doing it once (RFC 9110, 9.2.2). */
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

/** One request and its answer, sent on and back while they come. Each has an instance of its own. */
export class Exchange implements CallerExchange, Seeker, UpstreamUser {
  readonly #request: RequestHead;
  readonly #journal: RequestJournal;
  readonly #owner: ExchangeOwner;
  readonly #deps: ExchangeDependencies;
  /** The head as it is sent on. */
  #text = '';
  #search: UpstreamSearch | undefined;
  #upstream: Upstream | undefined;
  #token: PickToken | undefined;
  /** Taken from the pool, for the attempt at hand. */
  #pooled: Upstream | undefined;
  /** It goes past an agent, and is not kept: the next one is to try the agent again. */
  #past = false;
  /** What had left on the agent's stream before this request, in bytes. */
  #sentBefore = 0;
  /** Only channels that nobody has used yet: one from the pool has failed. */
  #fresh = false;
  /** What the searches before this one came to. */
  #before: SearchScope = {};
  /** Content that may have to be sent once more; undefined when that cannot happen any more. */
  #replay: Uint8Array[] | undefined = [];
  #replayBytes = 0;
  #trailers = '';
  #requestDone = false;
  #continued = false;
  /** The caller has been told the final status. */
  #answered = false;
  #answerDone = false;
  #keep = false;
  #chunked = false;
  #opaque = false;
  #over = false;
  #reason: RequestEndReason = 'done';
  #detail: string | undefined;

  constructor(
    request: RequestHead,
    journal: RequestJournal,
    owner: ExchangeOwner,
    dependencies: ExchangeDependencies,
  ) {
    this.#request = request;
    this.#journal = journal;
    this.#owner = owner;
    this.#deps = dependencies;
  }

  /** Sends the request on its way. */
  begin(): void {
    const request = this.#request;
    const { node, beyond } = this.#deps;
    const { origin, target } = this.#owner;
    if (request.method === 'CONNECT') {
      this.#answer(501, 'method-unknown', 'CONNECT is not taken here');
    } else if (isLoop(request, node)) {
      this.#answer(508, 'loop', 'the request has passed here too often');
    } else {
      const passage = { node, service: target.service.name, callerIp: origin.address?.ip, beyond };
      const { changes, traceId } = forwarding(request, passage);
      this.#journal.traceId = traceId;
      this.#text = requestHeadText(request, changes);
      this.#find();
    }
  }

  /** Answers by itself, in the place of `begin`. */
  refuse(status: number, reason: RequestEndReason, detail: string): void {
    this.#answer(status, reason, detail);
  }

  // The request, as it comes from the caller.

  requestContent(piece: Uint8Array): void {
    if (this.#over || this.#search === undefined) return;
    this.#journal.requestBytes += piece.length;
    if (this.#replay !== undefined) this.#remember(piece);
    this.#owner.requests.content(piece);
  }

  requestEnd(trailers: Fields | undefined): void {
    if (this.#over) return;
    this.#requestDone = true;
    if (this.#search === undefined) this.#settle();
    else {
      if (trailers !== undefined) this.#trailers = trailerLines(trailers, {});
      this.#owner.requests.end(this.#trailers);
      if (this.#answerDone) this.#settle();
    }
  }

  /** What was told is all for now. */
  requestRead(): void {
    if (this.#over || this.#search === undefined) return;
    const { requests, client } = this.#owner;
    requests.flush();
    if (requests.blocked && this.#upstream !== undefined && !this.#requestDone) client.pause();
  }

  /** The rest of the request cannot be read. */
  requestRefused({ status, reason, message }: HttpRefusal): void {
    if (this.#over) return;
    this.#search?.cancel();
    this.#drop('protocol');
    if (this.#answerDone) this.#end(false);
    else this.#fail(status, reason, 'protocol', message);
  }

  /** The caller takes more of the answer. */
  callerDrained(): void {
    this.#upstream?.channel.resume();
  }

  /** The caller's connection is over, or is ended by us. */
  abandon(reason: EndReason, detail: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#search?.cancel();
    this.#drop(reason);
    this.#token?.finished();
    this.#journal.finish(reason, detail);
  }

  /** Content is kept while another attempt may need it: until a new upstream has opened, or a used one answers. */
  #remember(piece: Uint8Array): void {
    const most = this.#deps.settings().replayBuffer;
    this.#replayBytes += piece.length;
    if (this.#upstream !== undefined && this.#replayBytes > most) {
      this.#replay = undefined;
      return;
    }
    this.#replay!.push(piece.slice());
    if (this.#upstream === undefined && this.#replayBytes >= most) this.#owner.client.pause();
  }

  // The search for an instance.

  #find(): void {
    const { origin, target } = this.#owner;
    const opened = this.#owner.takeOpened();
    const scope = opened === undefined ? this.#before : { ...this.#before, first: opened };
    this.#search = new UpstreamSearch(target, origin, this.#deps, this.#journal, this, scope);
    this.#search.start();
  }

  reuse(service: Service, instance: Instance): ReusedUpstream | undefined {
    if (this.#fresh) return undefined;
    const pooled = this.#deps.pool.take(service.name, instance, shareOf(service, this.#owner.origin));
    if (pooled === undefined) return undefined;
    this.#pooled = pooled;
    const { channel, path } = pooled.start;
    return { channel, path, token: this.#deps.reusing(service, instance) };
  }

  trying({ channel }: OpenedPath): void {
    this.#send(channel);
  }

  found({ channel, instance, token, opened }: FoundUpstream): void {
    const { client, origin, target } = this.#owner;
    const pooled = this.#pooled;
    this.#pooled = undefined;
    this.#token = token;
    this.#past = opened?.past === true;
    this.#journal.reused = pooled?.reused === true;
    const upstream =
      pooled ??
      new Upstream(
        {
          channel,
          agent: opened?.agent,
          path: opened?.path ?? 'none',
          service: target.service.name,
          instance,
          share: shareOf(target.service, origin),
        },
        this.#deps.pool,
      );
    this.#upstream = upstream;
    upstream.begin(this, { method: this.#request.method, upgrade: this.#request.upgrade });
    if (pooled === undefined) {
      if (!IDEMPOTENT.has(this.#request.method)) this.#replay = undefined;
    } else {
      const { agent } = pooled.start;
      this.#sentBefore = agent?.bytesSent ?? 0;
      this.#owner.requests.blocked = false;
      this.#send(channel);
      if (agent === undefined && !IDEMPOTENT.has(this.#request.method)) this.#replay = undefined;
    }
    channel.resume();
    if (!this.#requestDone) client.resume();
  }

  failed(reason: EndReason, detail: string | undefined, delivered: boolean): void {
    if (delivered && IDEMPOTENT.has(this.#request.method) && this.#mayAskAgain(false)) this.#again();
    else this.#answer(failureStatus(reason, delivered), reason, detail);
  }

  /** Writes what there is of the request so far. */
  #send(channel: Channel): void {
    const { requests, reading } = this.#owner;
    requests.begin(channel, this.#text, this.#request.framing.kind === 'chunked');
    if (this.#replay !== undefined) for (const piece of this.#replay) requests.content(piece);
    if (this.#requestDone) requests.end(this.#trailers);
    else if (!reading) requests.flush();
  }

  // The answer, as it comes from the upstream.

  answerHead(head: ResponseHead): void {
    this.#replay = undefined;
    const { answers, client } = this.#owner;
    const { minor } = this.#request;
    if (head.interim) {
      this.#continued ||= head.status === 100;
      if (minor === 0) return;
      answers.begin(client, responseHeadText(head, {}), false);
      answers.flush();
      return;
    }
    const framing = framingFor(minor, head.framing);
    this.#answered = true;
    this.#journal.status = head.status;
    this.#keep = this.#staysAfter(framing);
    this.#chunked = framing.kind === 'chunked';
    this.#opaque = framing.kind === 'opaque';
    const connection = this.#connection();
    const changes: ResponseChanges = connection === undefined ? { framing } : { framing, connection };
    answers.begin(client, responseHeadText(head, changes), this.#chunked);
  }

  answerContent(piece: Uint8Array): void {
    this.#journal.responseBytes += piece.length;
    this.#owner.answers.content(piece);
  }

  answerEnd(trailers: Fields | undefined): void {
    // The end of the head that switches: what follows is told by `upstreamSwitched`.
    if (this.#opaque) return;
    this.#owner.answers.end(trailers !== undefined && this.#chunked ? trailerLines(trailers, {}) : '');
    this.#answerDone = true;
    this.#settle();
  }

  answerRead(): void {
    if (this.#over) return;
    const { answers } = this.#owner;
    answers.flush();
    if (answers.blocked) this.#upstream?.channel.pause();
  }

  upstreamDrained(): void {
    const { requests, client } = this.#owner;
    requests.blocked = false;
    if (!this.#requestDone) client.resume();
  }

  upstreamRefused(refusal: HttpRefusal): void {
    this.#upstream = undefined;
    if (this.#answerDone) this.#end(false);
    else this.#fail(refusal.status, refusal.reason, 'protocol', refusal.message);
  }

  upstreamLost(why: ChannelClose, begun: boolean): void {
    const upstream = this.#upstream!;
    this.#upstream = undefined;
    if (this.#answerDone) this.#end(false);
    else if (!begun && this.#mayRepeat(upstream)) this.#again();
    else {
      const reason = why.reason === 'done' || why.reason === 'local' ? 'reset' : why.reason;
      this.#fail(failureStatus(reason, true), reason, reason, why.detail);
    }
  }

  upstreamSwitched(rest: Uint8Array): void {
    this.#owner.answers.flush();
    this.#over = true;
    const { channel } = this.#upstream!;
    this.#owner.switched(channel, rest, (reason, detail, { sent, received }) => {
      this.#token?.finished();
      this.#journal.requestBytes += sent;
      this.#journal.responseBytes += received;
      this.#journal.finish(reason, detail);
    });
  }

  /**
   * Once more, on a new channel: what may be done twice and is still there as a whole (nginx does so by default); and on
   * a channel from the pool, which its server may have closed just as the request went out, also where nothing has left.
   */
  #mayRepeat({ reused, start: { agent } }: Upstream): boolean {
    if (!this.#mayAskAgain(reused)) return false;
    return IDEMPOTENT.has(this.#request.method) || (reused && agent?.bytesSent === this.#sentBefore);
  }

  /** One that was lost on a channel from the pool has another attempt in any case. */
  #mayAskAgain(reused: boolean): boolean {
    if (this.#replay === undefined) return false;
    return reused || this.#search!.attempts < this.#deps.settings().attempts;
  }

  /** On a new channel, to another instance if there is one. */
  #again(): void {
    const { attempts, avoided } = this.#search!;
    this.#before = { attempts, avoid: avoided };
    this.#fresh = true;
    this.#journal.reused = false;
    this.#token?.finished();
    this.#token = undefined;
    this.#find();
  }

  #staysAfter(framing: Framing): boolean {
    if (framing.kind === 'close' || framing.kind === 'opaque') return false;
    return this.#request.keepAlive && this.#owner.stays && !this.#unwanted;
  }

  /** The caller waits for a word to send its content, and gets the answer instead: it may do so, or not. */
  get #unwanted(): boolean {
    return (
      this.#request.expectsContinue &&
      !this.#continued &&
      !this.#requestDone &&
      this.#journal.requestBytes === 0
    );
  }

  /** Nothing comes of this request: the caller is told so, or is cut off where it has been told something else. */
  #fail(status: number, reason: RequestEndReason, code: EndReason, detail: string | undefined): void {
    if (!this.#answered) {
      this.#answer(status, reason, detail);
      return;
    }
    this.#over = true;
    this.#token?.finished();
    this.#journal.finish(reason, detail);
    this.#owner.broken(code, detail);
  }

  /** The agent answers by itself. */
  #answer(status: number, reason: RequestEndReason, detail: string | undefined): void {
    const { answers, client, stays } = this.#owner;
    const { framing, keepAlive, method } = this.#request;
    const complete = this.#requestDone || isEmpty(framing);
    this.#search = undefined;
    this.#answered = true;
    this.#answerDone = true;
    this.#keep = keepAlive && stays && complete && method !== 'CONNECT';
    this.#reason = reason;
    this.#detail = detail;
    const { head, content } = localAnswerText({
      ...{ status, reason, detail, withoutContent: method === 'HEAD' },
      connection: this.#connection(),
    });
    this.#journal.status = status;
    this.#journal.responseBytes = content.length;
    answers.begin(client, head + content, false);
    answers.flush();
    // The end of a request without content is still to be told.
    if (this.#requestDone || !complete) this.#end(this.#keep);
  }

  /** What the caller is told about its connection; one of HTTP/1.0 has to be told that it stays. */
  #connection(): 'close' | 'keep-alive' | undefined {
    if (!this.#keep) return 'close';
    return this.#request.minor === 0 ? 'keep-alive' : undefined;
  }

  /** Both are complete, or one of them need not be waited for. */
  #settle(): void {
    if (this.#requestDone) this.#end(this.#keep);
    else if (this.#unwanted) this.#end(false);
  }

  #end(keep: boolean): void {
    if (this.#over) return;
    this.#over = true;
    const upstream = this.#upstream;
    if (upstream !== undefined && this.#requestDone) {
      this.#upstream = undefined;
      upstream.release();
      if (this.#past) this.#deps.pool.retire(upstream);
      else this.#deps.pool.put(upstream);
    } else this.#drop('done');
    this.#token?.finished();
    this.#journal.finish(this.#reason, this.#detail);
    this.#owner.over(keep && this.#requestDone);
  }

  #drop(reason: EndReason): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    this.#upstream = undefined;
    upstream.release();
    upstream.channel.reset(resetCode(reason));
  }
}

/** Chunks where the answer ends with its connection, so that the caller's can stay; and for HTTP/1.0 the other way round. */
function framingFor(minor: 0 | 1, framing: Framing): Framing {
  if (framing.kind === 'close' && minor === 1) return CHUNKED;
  return framing.kind === 'chunked' && minor === 0 ? UNTIL_CLOSE : framing;
}
