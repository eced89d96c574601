import type { ResponseHead } from '../http1/response-head.ts';
import type { Channel } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { Instance, Service } from '../model/service.ts';
import type { Origin } from '../proxy/origin.ts';
import type { OpenedPath, PickToken } from '../proxy/outbound-dependencies.ts';
import { UpstreamSearch } from '../proxy/search.ts';
import type { FoundUpstream, ReusedUpstream, SearchTarget, Seeker } from '../proxy/seeker.ts';
import { type AskedRequest, type Before, originOf, scopeOf, takesRetry } from './asked-request.ts';
import { Discard } from './discard.ts';
import type { ExchangeClock } from './exchange-clock.ts';
import type { ExchangeDependencies, ExchangeOwner } from './exchange-owner.ts';
import type { RequestJournal } from './request-journal.ts';
import type { LostAttempt } from './retry-rule.ts';
import { Upstream, type UpstreamUser } from './upstream.ts';
import { shareOf } from './upstream-pool.ts';

/** An exchange, as its attempts see it. It reads the answer itself. */
export interface AttemptsUser extends UpstreamUser {
  /** Bounds on its time; undefined: there are none. */
  readonly clock: ExchangeClock | undefined;
  /** No attempt brought an answer, and there is no other. `heard`: one of them may have been heard. */
  unanswered(reason: EndReason, detail: string | undefined, heard: boolean): void;
}

const NOTHING_BEFORE: Before = Object.freeze({});

/**
 * Asks instances for an answer, one after the other, and decides whether a request that was lost, late or answered badly is
 * asked again: on a new channel, and by an instance that was not tried, if there is one.
 */
export class Attempts implements Seeker {
  readonly #asked: AskedRequest;
  readonly #journal: RequestJournal;
  readonly #owner: ExchangeOwner;
  readonly #target: SearchTarget;
  /** Names the request where access rules are asked about it. */
  readonly #origin: Origin;
  readonly #deps: ExchangeDependencies;
  readonly #user: AttemptsUser;
  #search: UpstreamSearch | undefined;
  #upstream: Upstream | undefined;
  #token: PickToken | undefined;
  /** Taken from the pool, for the attempt at hand. */
  #pooled: Upstream | undefined;
  /** It goes past an agent, and is not kept: the next one is to try the agent again. */
  #past = false;
  /** What had left on the agent's stream before this request, in bytes. */
  #sentBefore = 0;
  /** When the attempt at hand was sent, on the clock of `performance.now()`. */
  #sentAt = 0;
  /** Further attempts, made on channels that nobody has used yet. */
  #retries = 0;
  /** Takes the next attempt back, while it is waited for. */
  #waiting: (() => void) | undefined;

  constructor(
    asked: AskedRequest,
    journal: RequestJournal,
    owner: ExchangeOwner,
    dependencies: ExchangeDependencies,
    user: AttemptsUser,
  ) {
    this.#asked = asked;
    this.#journal = journal;
    this.#owner = owner;
    this.#target = owner.target;
    this.#origin = originOf(asked, journal, owner, dependencies);
    this.#deps = dependencies;
    this.#user = user;
  }

  /** Begins. The user may be told of the outcome before this returns. */
  start(): void {
    this.#find(NOTHING_BEFORE);
  }

  // The search for an instance.

  #find(before: Before): void {
    const opened = this.#owner.takeOpened();
    const wanted = scopeOf(this.#asked, before);
    const scope = opened === undefined ? wanted : { ...wanted, first: opened };
    const search = new UpstreamSearch(this.#target, this.#origin, this.#deps, this.#journal, this, scope);
    this.#search = search;
    search.start();
  }

  reuse(service: Service, instance: Instance): ReusedUpstream | undefined {
    if (this.#retries > 0) return undefined;
    const { pool } = this.#deps;
    const pooled = pool.take(service.name, instance, shareOf(service, this.#owner.origin));
    if (pooled === undefined) return undefined;
    if (this.#origin.request !== undefined && !this.#deps.mayReuse(service, instance, this.#origin)) {
      pool.put(pooled, pooled.until);
      return undefined;
    }
    this.#pooled = pooled;
    const { channel, path } = pooled.start;
    return { channel, path, token: this.#deps.reusing(service, instance) };
  }

  trying({ channel }: OpenedPath): void {
    this.#sends(channel);
  }

  found({ channel, instance, token, opened }: FoundUpstream): void {
    const { request, outgoing, rule } = this.#asked;
    const pooled = this.#pooled;
    this.#pooled = undefined;
    this.#token = token;
    this.#past = opened?.past === true;
    this.#journal.reused = pooled?.reused === true;
    const upstream = pooled ?? this.#newUpstream(channel, instance, opened);
    const { agent } = upstream.start;
    this.#upstream = upstream;
    upstream.begin(this.#user, { method: request.method, upgrade: request.upgrade });
    this.#sentBefore = 0;
    // It may have had room again before it was ours, and then tells nobody; the next write says.
    this.#owner.requests.blocked = false;
    if (pooled !== undefined) {
      this.#sentBefore = agent?.bytesSent ?? 0;
      this.#sends(channel);
    }
    // On a used channel of an agent it may turn out that nothing has left.
    const mayRepeat = rule.repeats(request.method) || (pooled !== undefined && agent !== undefined);
    channel.resume();
    outgoing.taken(mayRepeat);
  }

  #newUpstream(channel: Channel, instance: Instance, opened: OpenedPath | undefined): Upstream {
    const { service } = this.#target;
    const { agent, path = 'none' } = opened ?? {};
    const share = shareOf(service, this.#owner.origin);
    return new Upstream({ channel, agent, path, service: service.name, instance, share }, this.#deps.pool);
  }

  #sends(channel: Channel): void {
    const { outgoing, rule } = this.#asked;
    if (rule.perTryTimeout > 0) this.#user.clock?.boundAttempt(rule.perTryTimeout);
    this.#sentAt = performance.now();
    outgoing.send(channel);
  }

  failed(reason: EndReason, detail: string | undefined, heard: boolean): void {
    const condition = reason === 'timeout' ? 'timeout' : 'reset';
    if (heard && this.#mayGoOn({ condition, heard, reused: false })) this.#again();
    else this.#over(reason, detail, heard);
  }

  // What becomes of an attempt.

  /** The head of an answer has come. False: another attempt is made, and this answer is nobody's. */
  accepts(head: ResponseHead): boolean {
    const { request, outgoing, rule } = this.#asked;
    this.#answered(head.status);
    const wanted =
      outgoing.repeatable &&
      rule.coversAnswer(request.method, head, this.#search!.attempts) &&
      takesRetry(this.#asked);
    if (wanted) {
      this.#refuse(head);
      this.#again();
      return false;
    }
    this.#user.clock?.attemptOver();
    outgoing.forget();
    return true;
  }

  /** An interim answer has come: the request was heard. */
  interim(): void {
    if (!this.#asked.rule.looksAtAnswers) this.#asked.outgoing.forget();
  }

  /** Its channel is lost. False: so is the request. `begun`: a byte of an answer had come. */
  lost(reason: EndReason, detail: string | undefined, begun: boolean): boolean {
    const { reused } = this.#upstream!;
    const heard = this.#heard;
    this.#note(reason, detail);
    this.#upstream = undefined;
    // Whoever closes a channel that idled may not have seen the request.
    if (begun || !reused) this.#answered(0);
    if (begun || !this.#mayGoOn({ condition: 'reset', heard, reused })) return false;
    this.#again();
    return true;
  }

  /** The attempt at hand takes too long. */
  expired(): void {
    if (this.#upstream === undefined) {
      this.#search!.late();
      return;
    }
    const heard = this.#heard;
    const detail = 'no answer within the bound of an attempt';
    this.#note('timeout', detail);
    this.#cut('timeout', true);
    if (this.#mayGoOn({ condition: 'timeout', heard, reused: false })) this.#again();
    else this.#over('timeout', detail, heard);
  }

  #note(reason: EndReason, detail: string | undefined): void {
    const { instance, path } = this.#upstream!.start;
    this.#journal.failures ??= [];
    this.#journal.failures.push({ instance: instance.id, path, reason, detail });
  }

  /** A byte of the request may have been heard at the upstream. */
  get #heard(): boolean {
    const { agent } = this.#upstream!.start;
    return agent === undefined || agent.bytesSent !== this.#sentBefore;
  }

  /** Whether there is another attempt; if so, it has been taken from the budget. */
  #mayGoOn(lost: LostAttempt): boolean {
    const { request, outgoing, rule } = this.#asked;
    const covered = outgoing.repeatable && rule.coversLoss(request.method, lost, this.#search!.attempts);
    return covered && takesRetry(this.#asked);
  }

  #again(): void {
    const { rule, outgoing } = this.#asked;
    const { attempts, avoided } = this.#search!;
    const before = { attempts, avoid: avoided };
    this.#journal.reused = false;
    this.#user.clock?.attemptOver();
    this.#finished();
    const pause = rule.backoff(++this.#retries, this.#deps.random);
    if (pause === 0) {
      this.#find(before);
      return;
    }
    // Nobody takes what the caller sends meanwhile.
    if (!outgoing.done) this.#owner.client.pause();
    this.#waiting = this.#deps.wait(pause, () => {
      this.#waiting = undefined;
      this.#find(before);
    });
  }

  #over(reason: EndReason, detail: string | undefined, heard: boolean): void {
    this.#user.clock?.attemptOver();
    this.#finished();
    this.#user.unanswered(reason, detail, heard);
  }

  /** Lets go of an answer that is not wanted. */
  #refuse(head: ResponseHead): void {
    const upstream = this.#upstream!;
    if (!this.#asked.outgoing.done || this.#past) {
      this.#cut('done', false);
      return;
    }
    this.#upstream = undefined;
    Discard.take(upstream, head, this.#deps.pool, this.#deps.after);
  }

  #answered(status: number): void {
    this.#token?.answered(status, performance.now() - this.#sentAt);
  }

  // The answer's pace, and the end.

  pause(): void {
    this.#upstream?.channel.pause();
  }

  resume(): void {
    this.#upstream?.channel.resume();
  }

  /** Nothing more comes of it. `late`: there should be an answer by now. */
  cancel(reason: EndReason, late = false): void {
    this.#waiting?.();
    this.#waiting = undefined;
    this.#search?.cancel();
    this.#cut(reason, late);
    this.#finished();
  }

  #cut(reason: EndReason, late: boolean): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    if (upstream === undefined) return;
    if (late) this.#answered(0);
    upstream.release();
    upstream.channel.reset(resetCode(reason));
  }

  /** The channel is over already, and nothing more comes of it. */
  gone(): void {
    this.#upstream = undefined;
    this.#finished();
  }

  /** Request and answer are complete: the channel may carry another request. */
  done(): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    if (upstream !== undefined) {
      upstream.release();
      if (this.#past) this.#deps.pool.retire(upstream);
      else this.#deps.pool.put(upstream);
    }
    this.#finished();
  }

  /** Both sides speak another protocol from now on. Answers the channel, and what is due at its end. */
  switched(): { readonly channel: Channel; readonly finished: () => void } {
    const { channel } = this.#upstream!;
    this.#upstream = undefined;
    return { channel, finished: () => this.#finished() };
  }

  #finished(): void {
    this.#asked.outgoing.stop();
    this.#token?.finished();
    this.#token = undefined;
  }
}
