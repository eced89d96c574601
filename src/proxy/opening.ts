import { meansUnreached } from '../balance/outages.ts';
import { mayRetry } from '../balance/retry.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { OriginalDestination } from '../model/address.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { Instance, Service } from '../model/service.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Origin } from './origin.ts';
import {
  AGENT_CONNECTS,
  type AgentStream,
  type OpenedPath,
  type OutboundDependencies,
  type OutboundRoute,
  type PickToken,
} from './outbound-dependencies.ts';
import { Relay } from './relay.ts';

/** Silent agents that one connection passes by at once; further ones count as attempts. */
const MAX_SKIPPED = 16;

/**
 * A connection whose upstream is being found. Holds the caller's first bytes for as long as another instance may
 * still be tried, and hands over to a Relay with the first upstream that opens.
 */
export class Opening implements ChannelHandler {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  readonly #origin: Origin;
  readonly #deps: OutboundDependencies;
  readonly #tried = new Set<Instance>();
  /** Instances whose agent could not be reached: permissive services go to them directly in the end. */
  readonly #agentless: Instance[] = [];
  #service: Service | undefined;
  /** Set when the caller named one instance by its own address. */
  #only: Instance | undefined;
  #upstream: Channel | undefined;
  #token: PickToken | undefined;
  #instance: Instance | undefined;
  /** What is tried next when the agent of this attempt is given up: another instance, or the same one once more. */
  #following: Instance | undefined;
  #repeat: Instance | undefined;
  #repeated = false;
  /** Attempts that count; those whose agent was known to be silent cost no time, and do not. */
  #attempts = 0;
  #skipped = 0;
  /** The attempt was given up for want of an answer. */
  #late = false;
  /** Every attempt so far says that its instance cannot be reached, and not that it, or this host, did not want to. */
  #unreached = true;
  #replay: Uint8Array[] = [];
  #replayBytes = 0;
  #clientEnded = false;
  #over = false;
  /** Takes the bound on an agent's answer back. */
  #patience: () => void = () => {};

  constructor(client: Channel, entry: ConnectionEntry, origin: Origin, deps: OutboundDependencies) {
    this.#client = client;
    this.#entry = entry;
    this.#origin = origin;
    this.#deps = deps;
    client.handler = this;
    entry.abort = (end) => this.refuse(end.reason, end.detail);
  }

  /** `exempt`: nothing of this caller is touched. */
  start(destination: OriginalDestination, exempt: boolean): void {
    if (this.#over) return;
    const known = this.#deps.route(destination);
    const route: OutboundRoute = exempt && mayPass(known, destination) ? { kind: 'passthrough' } : known;
    switch (route.kind) {
      case 'refuse':
        this.refuse(route.reason);
        return;
      case 'passthrough':
        this.#entry.path = 'passthrough';
        this.#entry.attempts = 1;
        this.#connect(this.#deps.direct(destination), (why) => this.refuse(reasonOf(why), why.detail), false);
        return;
      case 'instance':
        this.#only = route.instance;
        break;
      case 'service':
        break;
    }
    this.#service = route.service;
    this.#entry.service = route.service.name;
    this.#next('no-instance', 'no instance may be used');
  }

  /** Refuses the caller with an immediate reset: it believes that it is connected, so silence would be a lie. */
  refuse(reason: EndReason, detail?: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#patience();
    this.#client.reset(resetCode(reason));
    this.#upstream?.reset();
    this.#token?.finished();
    this.#entry.finish(reason, detail);
  }

  /** Tries the next instance; when none is left, the last failure is the caller's. */
  #next(reason: EndReason, detail: string | undefined): void {
    const instance = this.#candidate();
    if (instance !== undefined) {
      this.#attempts++;
      this.#tried.add(instance);
      const opened = this.#deps.open(this.#service!, instance, this.#origin);
      this.#attempt(this.#service!, instance, opened);
    } else this.#giveUp(reason, detail);
  }

  #candidate(): Instance | undefined {
    const following = this.#following;
    if (following !== undefined) {
      this.#following = undefined;
      return following;
    }
    if (this.#only === undefined) {
      const instance = this.#deps.pick(this.#service!, this.#tried);
      if (instance !== undefined) return instance;
    } else if (this.#tried.size === 0) return this.#only;
    const repeat = this.#repeat;
    if (repeat !== undefined) this.#repeated = true;
    this.#repeat = undefined;
    return repeat;
  }

  /** No other instance is left, or may be tried: what remains is to go past an agent that cannot be reached. */
  #giveUp(reason: EndReason, detail: string | undefined): void {
    const service = this.#service!;
    const bypass = service.mode === 'permissive' ? this.#agentless.shift() : undefined;
    if (bypass === undefined) {
      this.refuse(reason, detail);
      if (this.#unreached && this.#tried.size > 0) this.#deps.unreached(service, this.#tried, this.#only);
      return;
    }
    const channel = this.#deps.past(service, bypass, this.#origin);
    this.#attempt(service, bypass, { channel, path: 'direct', viaAgent: false });
  }

  #attempt(service: Service, instance: Instance, opened: OpenedPath): void {
    const entry = this.#entry;
    entry.attempts++;
    entry.instance = instance.id;
    entry.zone = instance.zone;
    entry.path = opened.path;
    this.#instance = instance;
    const token = this.#deps.started(service, instance, opened.path, entry.attempts);
    this.#token = token;
    this.#late = false;
    this.#connect(
      opened.channel,
      (closed) => {
        this.#patience();
        const why: ChannelClose = this.#late
          ? { ...closed, reason: 'timeout', source: 'peer', detail: 'no answer from the agent in time' }
          : closed;
        const agentFailed = opened.viaAgent && why.source === 'peer' && why.reason !== 'denied';
        if (!meansUnreached(why.reason)) this.#unreached = false;
        // Nothing is known against the instance itself. One behind a relay has no route from here, so it is no way out.
        if (why.reason === 'tunnel-lost') this.#mayRepeat(opened.path);
        if (!agentFailed) token.failed();
        else if (opened.path === 'tunnel') this.#agentless.push(instance);
        token.finished();
        this.#token = undefined;
        if (why.delivered) this.refuse(reasonOf(why), why.detail);
        else if (opened.path !== 'direct' && this.#mayRetry(why)) this.#next(reasonOf(why), why.detail);
        else this.#giveUp(reasonOf(why), why.detail);
      },
      opened.viaAgent,
    );
    if (opened.viaAgent) this.#beginPatience(opened);
  }

  /** A peer that is cut off answers nothing at all: its callers must not wait for the last timeout. */
  #beginPatience(opened: OpenedPath): void {
    const left = this.#deps.settings().agentPatience - (opened.agent?.silence ?? 0);
    if (left > 0) this.#patience = this.#deps.after(left, () => this.#patienceOver(opened));
    else {
      if (this.#skipped++ < MAX_SKIPPED) this.#attempts--;
      this.#patienceOver(opened);
    }
  }

  /**
   * The agent has not answered in time. Where no byte of the caller has left and there is another way, the attempt is
   * given up; what may have been heard is never said twice, and waits for the agent or for the end of its tunnel.
   */
  #patienceOver({ agent, channel, path }: OpenedPath): void {
    const givesUp = agent?.bytesSent === 0 && this.#findsAnother(agent, path);
    agent?.doubt();
    if (givesUp) {
      this.#late = true;
      channel.reset('timeout');
      return;
    }
    // An agent that lives and never answers: its caller believes that it is connected, and must not wait for ever.
    this.#patience = this.#deps.after(this.#deps.settings().connectTimeout * AGENT_CONNECTS, () => {
      this.#late = true;
      channel.reset('timeout');
    });
  }

  /** Whether anything may be tried instead of waiting for this agent; what it is is kept for `#next`. */
  #findsAnother(agent: AgentStream, path: OpenedPath['path']): boolean {
    const { mode } = this.#service!;
    const past = mode === 'permissive' && (path === 'tunnel' || this.#agentless.length > 0);
    if (this.#attempts >= this.#deps.settings().attempts) return past;
    if (this.#only === undefined) this.#following = this.#deps.pick(this.#service!, this.#tried);
    if (agent.doubtful) this.#mayRepeat(path);
    return past || this.#following !== undefined || this.#repeat !== undefined;
  }

  /** A tunnel in doubt gets no new stream: once, the same instance is asked through another one, where there is no way past. */
  #mayRepeat(path: OpenedPath['path']): void {
    const past = path === 'tunnel' && this.#service!.mode === 'permissive';
    if (!past && !this.#repeated) this.#repeat = this.#instance;
  }

  #mayRetry(why: ChannelClose): boolean {
    return mayRetry({
      attempt: this.#attempts,
      maxAttempts: this.#deps.settings().attempts,
      delivered: why.delivered,
      code: why.reason === 'done' || why.reason === 'local' ? 'reset' : why.reason,
      source: why.source,
    });
  }

  /**
   * Waits for the upstream to open. `early`: the caller's bytes may travel with the opening, which spares a round
   * trip; without it (plain TCP, where nothing is gained) the caller stays paused and nothing has to be kept.
   */
  #connect(upstream: Channel, failed: (why: ChannelClose) => void, early: boolean): void {
    this.#upstream = upstream;
    upstream.handler = {
      open: () => this.#opened(upstream),
      data: () => {},
      end: () => {},
      drain: () => {},
      close: (why) => {
        if (this.#over) return;
        this.#upstream = undefined;
        failed(why);
      },
    };
    for (const bytes of this.#replay) upstream.write(bytes);
    if (this.#clientEnded) upstream.end();
    if (early) this.#client.resume();
  }

  #opened(upstream: Channel): void {
    if (this.#over) return;
    this.#over = true;
    this.#patience();
    const token = this.#token;
    token?.connected();
    if (this.#instance !== undefined) this.#deps.reached(this.#service!, this.#instance);
    const entry = this.#entry;
    const relay = new Relay(this.#client, upstream, (end) => {
      token?.finished();
      entry.finish(end.reason, end.detail);
    });
    relay.account(this.#replayBytes, this.#clientEnded);
    this.#replay = [];
    entry.relay = relay;
    entry.abort = (end) => relay.abort(end);
    upstream.resume();
    this.#client.resume();
  }

  // The caller's side, until the relay takes over.

  data(bytes: Uint8Array): void {
    this.#replay.push(Uint8Array.prototype.slice.call(bytes));
    this.#replayBytes += bytes.length;
    this.#upstream?.write(bytes);
    if (this.#replayBytes >= this.#deps.settings().replayBuffer) this.#client.pause();
  }

  end(): void {
    this.#clientEnded = true;
    this.#upstream?.end();
  }

  drain(): void {}

  close(why: ChannelClose): void {
    if (this.#over) return;
    this.#over = true;
    this.#patience();
    this.#upstream?.reset();
    this.#token?.finished();
    this.#entry.finish(why.reason === 'reset' ? 'client-reset' : reasonOf(why), why.detail);
  }
}

/**
 * Whether an exempt caller's connection may go on to where it was going: not to a strict service, which nobody reaches
 * past the agent, and not to a virtual address, behind which nothing stands.
 */
function mayPass(route: OutboundRoute, { ip }: OriginalDestination): boolean {
  if (route.kind !== 'service' && route.kind !== 'instance') return false;
  const { mode, virtual } = route.service;
  return mode !== 'strict' && virtual?.includes(ip) !== true;
}

function reasonOf(why: ChannelClose): EndReason {
  return why.reason === 'local' ? 'done' : why.reason;
}
