import { meansUnreached } from '../balance/outages.ts';
import { mayRetry } from '../balance/retry.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import {
  type ClientAddress,
  type Endpoint,
  endpointKey,
  type OriginalDestination,
} from '../model/address.ts';
import { type ConnectionPath, type EndReason, resetCode } from '../model/connection.ts';
import type { Instance, NodeName, Service, ServiceName } from '../model/service.ts';
import type { ConnectionEntry, Connections } from './connections.ts';
import type { Origin } from './origin.ts';
import { Relay } from './relay.ts';

/** Where a captured connection goes; what route.lookup answers, seen from here. */
export type OutboundRoute =
  | { readonly kind: 'service'; readonly service: Service }
  | { readonly kind: 'instance'; readonly service: Service; readonly instance: Instance }
  | { readonly kind: 'passthrough' }
  | { readonly kind: 'refuse'; readonly reason: EndReason };

/** A way to an instance, opened. */
export interface OpenedPath {
  readonly channel: Channel;
  readonly path: ConnectionPath;
  /** True when another agent stands between, so that its failure is not the instance's. */
  readonly viaAgent: boolean;
  /** Resets the channel if no byte of the caller has left; false when some has, and it must be waited for. */
  abandon?(): boolean;
  /** No answer for too long: the tunnel has to prove that it lives, or it is lost with everything in it. */
  doubt?(): void;
}

/** Told when a pick is over: how it went, for outlier ejection and least connections. */
export interface PickToken {
  /** The instance was reached. */
  connected(): void;
  /** It could not be reached, or did not answer as it should. */
  failed(): void;
  /** The connection is over. Exactly once, last. */
  finished(): void;
}

/** What an outbound connection needs from the stages; composed in the worker. */
export interface OutboundDependencies {
  route(destination: OriginalDestination): OutboundRoute;
  pick(service: Service, exclude: ReadonlySet<Instance>): Instance | undefined;
  /** An attempt begins: the first one is 1. */
  started(service: Service, instance: Instance, path: ConnectionPath, attempt: number): PickToken;
  /** The way through the mesh; throws nothing, failures arrive as `close`. */
  open(service: Service, instance: Instance, origin: Origin): OpenedPath;
  /** A connection got through to this instance. */
  reached(service: Service, instance: Instance): void;
  /** It could not reach any of these, each for a reason that speaks of the instance. `only`: no other was meant. */
  unreached(service: Service, tried: ReadonlySet<Instance>, only: Instance | undefined): void;
  /** The way past an agent that cannot be reached. */
  past(service: Service, instance: Instance, origin: Origin): Channel;
  /** To where a connection was going. */
  direct(endpoint: Endpoint): Channel;
  /** Calls `expired` once, about then; the answer takes it back. Cheap: there is one for many connections. */
  after(milliseconds: number, expired: () => void): () => void;
  readonly callerNode: NodeName;
  callerService(): ServiceName | undefined;
  /** Finds out who calls, for the entry; answers why the connection must be refused, or undefined. */
  admit(entry: ConnectionEntry, from: ClientAddress, to: Endpoint, listener: Endpoint): string | undefined;
  /** Whether the allow-list names the caller; undefined until its name is known (`entry.naming`). */
  exempt(entry: ConnectionEntry): boolean | undefined;
  settings(): OutboundSettings;
}

export interface OutboundSettings {
  /** Bound on reaching one instance. */
  readonly connectTimeout: number;
  /** Bound on the way through another agent, where going past it is allowed. */
  readonly agentPatience: number;
  /** Instances tried for one connection. */
  readonly attempts: number;
  /** Bytes of the caller that are kept for another attempt; may be passed by one read. */
  readonly replayBuffer: number;
}

/** After `agentPatience`, another agent has this many times `connectTimeout`: for the way to it, and for its own dial. */
export const AGENT_CONNECTS = 2;

/** Takes captured connections to where they are meant to go. */
export class Outbound {
  readonly dependencies: OutboundDependencies;
  readonly connections: Connections;

  constructor(dependencies: OutboundDependencies, connections: Connections) {
    this.dependencies = dependencies;
    this.connections = connections;
  }

  /** `destination` is undefined for a connection that was made to the capture port itself: a loop, which is refused. */
  accept(
    client: Channel,
    from: ClientAddress,
    destination: OriginalDestination | undefined,
    listener: Endpoint,
  ): void {
    const entry = this.#entry(from, destination ?? listener);
    const refusal = this.dependencies.admit(entry, from, destination ?? listener, listener);
    const opening = this.#begin(client, from, entry);
    if (refusal !== undefined) opening.refuse('overload', refusal);
    else if (destination === undefined) opening.refuse('loop', 'a connection to the capture port itself');
    else this.#start(opening, entry, destination);
  }

  /** A caller whose name decides whether it is touched at all waits for it, within its bound; others never do. */
  #start(opening: Opening, entry: ConnectionEntry, destination: OriginalDestination): void {
    const { dependencies } = this;
    const exempt = dependencies.exempt(entry);
    if (exempt !== undefined) opening.start(destination, exempt);
    else if (!entry.naming!.wait(() => opening.start(destination, dependencies.exempt(entry) === true)))
      opening.start(destination, false);
  }

  /** Resets a connection that is one too many, and writes it down. */
  refuse(client: Channel, from: ClientAddress, destination: Endpoint): void {
    this.#begin(client, from, this.#entry(from, destination)).refuse(
      'overload',
      'limits.connections is reached',
    );
  }

  #begin(client: Channel, from: ClientAddress, entry: ConnectionEntry): Opening {
    return new Opening(client, entry, { address: from, program: entry.callerProgram }, this.dependencies);
  }

  #entry(from: ClientAddress, destination: Endpoint): ConnectionEntry {
    const { dependencies } = this;
    return this.connections.begin({
      direction: 'outbound',
      callerNode: dependencies.callerNode,
      callerService: dependencies.callerService(),
      callerAddress: endpointKey(from),
      destination: endpointKey(destination),
    });
  }
}

/**
 * A connection whose upstream is being found. Holds the caller's first bytes for as long as another instance may
 * still be tried, and hands over to a Relay with the first upstream that opens.
 */
class Opening implements ChannelHandler {
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
      this.#tried.add(instance);
      const opened = this.#deps.open(this.#service!, instance, this.#origin);
      this.#attempt(this.#service!, instance, opened);
    } else this.#giveUp(reason, detail);
  }

  #candidate(): Instance | undefined {
    if (this.#only === undefined) return this.#deps.pick(this.#service!, this.#tried);
    return this.#tried.size === 0 ? this.#only : undefined;
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
    let late = false;
    // A peer that is cut off answers nothing at all: its callers must not wait for the last timeout.
    const mayBypass = opened.path === 'tunnel' && service.mode === 'permissive';
    if (opened.viaAgent) {
      const { agentPatience, connectTimeout } = this.#deps.settings();
      this.#patience = this.#deps.after(agentPatience, () => {
        late = mayBypass && opened.abandon?.() === true;
        opened.doubt?.();
        if (late) return;
        // An agent that lives and never answers: its caller believes that it is connected, and must not wait for ever.
        this.#patience = this.#deps.after(connectTimeout * AGENT_CONNECTS, () => {
          late = true;
          opened.channel.reset('timeout');
        });
      });
    }
    this.#connect(
      opened.channel,
      (closed) => {
        this.#patience();
        const why: ChannelClose = late
          ? { ...closed, reason: 'timeout', source: 'peer', detail: 'no answer from the agent in time' }
          : closed;
        const agentFailed = opened.viaAgent && why.source === 'peer' && why.reason !== 'denied';
        if (!meansUnreached(why.reason)) this.#unreached = false;
        // Nothing is known against the instance itself. One behind a relay has no route from here, so it is no way out.
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
  }

  #mayRetry(why: ChannelClose): boolean {
    return mayRetry({
      attempt: this.#tried.size,
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
