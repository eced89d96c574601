import type { Fields } from '../http1/fields.ts';
import { CHUNKED, type Framing, isEmpty, UNTIL_CLOSE } from '../http1/framing.ts';
import { type ResponseChanges, responseHeadText, trailerLines } from '../http1/head-writer.ts';
import type { HttpRefusal } from '../http1/refusal.ts';
import type { RequestHead } from '../http1/request-head.ts';
import type { ResponseHead } from '../http1/response-head.ts';
import type { ChannelClose } from '../io/channel.ts';
import type { EndReason } from '../model/connection.ts';
import type { RequestEndReason } from '../model/request.ts';
import type { Admission } from './admission.ts';
import { Attempts, type AttemptsUser } from './attempts.ts';
import type { CallerExchange } from './caller-exchange.ts';
import { type ClockedExchange, ExchangeClock } from './exchange-clock.ts';
import type { ExchangeDependencies, ExchangeOwner } from './exchange-owner.ts';
import { failureStatus, localAnswerText } from './local-answer.ts';
import { Outgoing } from './outgoing.ts';
import { decide, type SentOn } from './request-decision.ts';
import type { RequestJournal } from './request-journal.ts';
import { NO_PLAN, type RequestPlan } from './request-plan.ts';
import { RetryRule } from './retry-rule.ts';

/** One request and its answer, sent on and back while they come. Each has an instance of its own. */
export class Exchange implements CallerExchange, AttemptsUser, ClockedExchange {
  clock: ExchangeClock | undefined;
  readonly #request: RequestHead;
  readonly #journal: RequestJournal;
  readonly #owner: ExchangeOwner;
  readonly #deps: ExchangeDependencies;
  /** What was decided about it. */
  #plan: RequestPlan = NO_PLAN;
  #admission: Admission | undefined;
  /** Undefined: it goes nowhere. */
  #outgoing: Outgoing | undefined;
  #attempts: Attempts | undefined;
  /** Takes back what is waited for before the first attempt. */
  #waiting: (() => void) | undefined;
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
    const decided = decide(this.#request, this.#journal, this.#owner, this.#deps);
    if (decided.kind === 'sent-on') this.#ask(decided);
    else this.#answer(decided.status, decided.reason, decided.detail, decided.fields);
  }

  /** Answers by itself, in the place of `begin`. */
  refuse(status: number, reason: RequestEndReason, detail: string | undefined): void {
    this.#answer(status, reason, detail);
  }

  /** For how long neither side may say anything while the request lasts, in ms; 0: for ever. Undefined: nobody said. */
  get silence(): number | undefined {
    return this.#plan.timeouts.stream;
  }

  /** Asks for an answer, at once or, in a test, later. */
  #ask({ plan, text, admission }: SentOn): void {
    const request = this.#request;
    const { after, settings, wait } = this.#deps;
    const rule = plan.retries ?? RetryRule.byDefault(settings());
    const { request: bound = 0 } = plan.timeouts;
    this.#plan = plan;
    this.#admission = admission;
    if (bound > 0 || rule.perTryTimeout > 0) this.clock = new ExchangeClock(after, this);
    if (bound > 0) this.clock!.boundRequest(bound);
    const outgoing = new Outgoing(request, text, this.#owner, rule.replayBuffer);
    this.#outgoing = outgoing;
    const asked = { request, outgoing, plan, rule, admission };
    this.#attempts = new Attempts(asked, this.#journal, this.#owner, this.#deps, this);
    if (plan.delay > 0) this.#waiting = wait(plan.delay, () => this.#askNow());
    else this.#askNow();
  }

  #askNow(): void {
    const { abort } = this.#plan;
    this.#waiting = undefined;
    if (abort === undefined) this.#attempts!.start();
    else this.#answer(abort, 'fault', 'a fault that was put in for a test');
  }

  // The request, as it comes from the caller.

  requestContent(piece: Uint8Array): void {
    if (this.#over || this.#outgoing === undefined) return;
    this.#journal.requestBytes += piece.length;
    this.#outgoing.content(piece);
  }

  requestEnd(trailers: Fields | undefined): void {
    if (this.#over) return;
    this.#requestDone = true;
    this.#outgoing?.end(trailers === undefined ? '' : trailerLines(trailers, {}));
    if (this.#answerDone) this.#settle();
  }

  /** What was told is all for now. */
  requestRead(): void {
    if (!this.#over) this.#outgoing?.flush();
  }

  /** The rest of the request cannot be read. */
  requestRefused({ status, reason, message }: HttpRefusal): void {
    if (this.#over) return;
    this.#cancel('protocol');
    if (this.#answerDone) this.#end(false);
    else this.#fail(status, reason, 'protocol', message);
  }

  /** The caller takes more of the answer. */
  callerDrained(): void {
    this.#attempts?.resume();
  }

  /** The caller's connection is over, or is ended by us. */
  abandon(reason: EndReason, detail: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancel(reason);
    this.#finish(reason, detail);
  }

  // The answer, as it comes from the upstream.

  answerHead(head: ResponseHead): void {
    if (head.interim) {
      this.#interim(head);
      return;
    }
    if (!this.#attempts!.accepts(head)) return;
    const { answers, client } = this.#owner;
    const { minor } = this.#request;
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

  #interim(head: ResponseHead): void {
    const { answers, client } = this.#owner;
    this.#attempts!.interim();
    // The caller has been told once that it may go on; a server that is asked anew says so again.
    const again = head.status === 100 && this.#continued;
    this.#continued ||= head.status === 100;
    if (again || this.#request.minor === 0) return;
    answers.begin(client, responseHeadText(head, {}), false);
    answers.flush();
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
    if (answers.blocked) this.#attempts!.pause();
  }

  upstreamDrained(): void {
    this.#outgoing!.drained();
  }

  upstreamRefused(refusal: HttpRefusal): void {
    this.#attempts!.gone();
    if (this.#answerDone) this.#end(false);
    else this.#fail(refusal.status, refusal.reason, 'protocol', refusal.message);
  }

  upstreamLost(why: ChannelClose, begun: boolean): void {
    if (this.#answerDone) {
      this.#attempts!.gone();
      this.#end(false);
      return;
    }
    const reason = why.reason === 'done' || why.reason === 'local' ? 'reset' : why.reason;
    if (!this.#attempts!.lost(reason, why.detail, begun)) {
      this.#fail(failureStatus(reason, true), reason, reason, why.detail);
    }
  }

  upstreamSwitched(rest: Uint8Array): void {
    this.#owner.answers.flush();
    this.#over = true;
    this.clock?.stop();
    const { channel, finished } = this.#attempts!.switched();
    this.#journal.switched(this.#plan.path);
    this.#owner.switched(
      channel,
      rest,
      (reason, detail, { sent, received }) => {
        finished();
        this.#journal.requestBytes += sent;
        this.#journal.responseBytes += received;
        this.#finish(reason, detail);
      },
      this.#plan.timeouts.stream,
    );
  }

  /** There is nobody to answer, or nobody answered. */
  unanswered(reason: EndReason, detail: string | undefined, heard: boolean): void {
    this.#answer(failureStatus(reason, heard), reason, detail);
  }

  // Time.

  requestExpired(): void {
    this.#late('request-timeout', 'the request took longer than it may');
  }

  attemptExpired(): void {
    if (!this.#over) this.#attempts!.expired();
  }

  /** For too long neither side has said anything. */
  silent(): void {
    this.#late('stream-timeout', 'no byte went either way for too long');
  }

  #late(reason: RequestEndReason, detail: string): void {
    if (this.#over) return;
    // Who waits for its caller is not late.
    this.#cancel('timeout', this.#requestDone);
    if (this.#answerDone) this.#end(false);
    else this.#fail(504, reason, 'timeout', detail);
  }

  // The end.

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
    this.#attempts?.gone();
    this.#finish(reason, detail);
    this.#owner.broken(code, detail);
  }

  /** The agent answers by itself. `fields`: further lines of the head. */
  #answer(status: number, reason: RequestEndReason, detail: string | undefined, fields = ''): void {
    const { answers, client, stays } = this.#owner;
    const { framing, keepAlive, method } = this.#request;
    const complete = this.#requestDone || isEmpty(framing);
    this.#outgoing = undefined;
    this.#answered = true;
    this.#answerDone = true;
    this.#keep = keepAlive && stays && complete && method !== 'CONNECT';
    this.#reason = reason;
    this.#detail = detail;
    const { head, content } = localAnswerText({
      ...{ status, reason, detail, withoutContent: method === 'HEAD', fields },
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
    if (this.#requestDone) this.#attempts?.done();
    else this.#cancel('done');
    this.#finish(this.#reason, this.#detail);
    this.#owner.over(keep && this.#requestDone);
  }

  /** Nothing more comes from an instance. `late`: it should have answered by now. */
  #cancel(reason: EndReason, late = false): void {
    this.#waiting?.();
    this.#waiting = undefined;
    this.#attempts?.cancel(reason, late);
  }

  /** Whatever the request held is given back, and it is written down. */
  #finish(reason: RequestEndReason, detail: string | undefined): void {
    this.clock?.stop();
    this.#admission?.over();
    this.#journal.finish(reason, detail);
  }
}

/** Chunks where the answer ends with its connection, so that the caller's can stay; and for HTTP/1.0 the other way round. */
function framingFor(minor: 0 | 1, framing: Framing): Framing {
  if (framing.kind === 'close' && minor === 1) return CHUNKED;
  return framing.kind === 'chunked' && minor === 0 ? UNTIL_CLOSE : framing;
}
