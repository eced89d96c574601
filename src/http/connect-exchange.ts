import type { HttpRefusal } from '../http1/refusal.ts';
import type { Channel } from '../io/channel.ts';
import type { EndReason } from '../model/connection.ts';
import type { RequestEndReason } from '../model/request.ts';
import type { PickToken } from '../proxy/outbound-dependencies.ts';
import { UpstreamSearch } from '../proxy/search.ts';
import type { FoundUpstream, Seeker } from '../proxy/seeker.ts';
import type { CallerExchange } from './caller-exchange.ts';
import type { ExchangeDependencies, ExchangeOwner, SwitchedEnd } from './exchange-owner.ts';
import { lastAnswer } from './last-answer.ts';
import { failureStatus } from './local-answer.ts';
import type { RequestJournal } from './request-journal.ts';

const NOTHING = new Uint8Array(0);

/** The answer to CONNECT once there is somebody at the other end; it has no content (RFC 9110, 9.3.6). */
export const CONNECTED = 'HTTP/1.1 200 Connection Established\r\n\r\n';

/**
 * A request for a tunnel (CONNECT): an upstream is searched as for a connection, and bytes are relayed as they are once
 * it has opened. What the caller sends before that is kept by its connection, so nothing can be delivered twice.
 */
export class ConnectExchange implements CallerExchange, Seeker {
  readonly #journal: RequestJournal;
  readonly #owner: ExchangeOwner;
  readonly #search: UpstreamSearch;
  /** Bound on silence in the tunnel, in ms; undefined: none. */
  readonly #idle: number | undefined;
  #over = false;

  constructor(journal: RequestJournal, owner: ExchangeOwner, dependencies: ExchangeDependencies) {
    this.#journal = journal;
    this.#owner = owner;
    this.#idle = dependencies.policy(owner.target.service.name).timeouts?.idle;
    this.#search = new UpstreamSearch(owner.target, owner.origin, dependencies, journal, this);
  }

  begin(): void {
    this.#search.start();
  }

  trying(): void {}

  found({ channel, token }: FoundUpstream): void {
    this.#over = true;
    this.#journal.status = 200;
    const { answers, client } = this.#owner;
    answers.begin(client, CONNECTED, false);
    this.#relay(channel, token);
  }

  failed(reason: EndReason, detail: string | undefined, delivered: boolean): void {
    this.#answer(failureStatus(reason, delivered), reason, detail);
  }

  #relay(channel: Channel, token: PickToken): void {
    const journal = this.#journal;
    journal.switched();
    const ended: SwitchedEnd = (reason, detail, { sent, received }) => {
      token.finished();
      journal.requestBytes = sent;
      journal.responseBytes = received;
      journal.finish(reason, detail);
    };
    this.#owner.switched(channel, NOTHING, ended, this.#idle);
  }

  // A request for a tunnel has no content, and nothing behind it is read as a request.

  requestContent(): void {}
  requestEnd(): void {}
  requestRead(): void {}
  callerDrained(): void {}
  /** The search for an upstream has bounds of its own. */
  readonly silence = 0;
  silent(): void {}

  requestRefused({ status, reason, message }: HttpRefusal): void {
    if (this.#over) return;
    this.#search.cancel();
    this.#answer(status, reason, message);
  }

  abandon(reason: EndReason, detail: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#search.cancel();
    this.#journal.finish(reason, detail);
  }

  #answer(status: number, reason: RequestEndReason, detail: string | undefined): void {
    this.#over = true;
    lastAnswer(this.#owner, this.#journal, status, reason, detail);
    this.#owner.over(false);
  }
}
