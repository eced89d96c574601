import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { OriginalDestination } from '../model/address.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Origin } from './origin.ts';
import type { OpenedPath, OutboundDependencies, OutboundRoute, PickToken } from './outbound-dependencies.ts';
import { Relay } from './relay.ts';
import { type FoundUpstream, reasonOf, type SearchTarget, type Seeker, UpstreamSearch } from './search.ts';

/**
 * A connection whose upstream is being found. Holds the caller's first bytes for as long as another instance may
 * still be tried, and hands over to a Relay with the first upstream that opens.
 */
export class Opening implements ChannelHandler, Seeker {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  readonly #origin: Origin;
  readonly #deps: OutboundDependencies;
  #search: UpstreamSearch | undefined;
  #upstream: Channel | undefined;
  #replay: Uint8Array[] = [];
  #replayBytes = 0;
  #clientEnded = false;
  #over = false;

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
        this.#passThrough(this.#deps.direct(destination));
        return;
      case 'instance':
        this.#toward({ service: route.service, instance: route.instance });
        return;
      case 'shared':
        if (route.strict) this.refuse('configuration', 'services share the address, and one is strict');
        else this.#passThrough(this.#deps.direct(destination));
        return;
      case 'service':
        this.#toward({ service: route.service, instance: undefined });
    }
  }

  /** Refuses the caller with an immediate reset: it believes that it is connected, so silence would be a lie. */
  refuse(reason: EndReason, detail?: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#client.reset(resetCode(reason));
    this.#leave();
    this.#entry.finish(reason, detail);
  }

  #leave(): void {
    if (this.#search !== undefined) this.#search.cancel();
    else this.#upstream?.reset();
  }

  #toward(target: SearchTarget): void {
    const { service } = target;
    this.#entry.service = service.name;
    if (service.protocol === 'http' && this.#deps.http !== undefined) {
      this.#over = true;
      this.#deps.http(this.#client, this.#entry, this.#origin, target);
      return;
    }
    this.#search = new UpstreamSearch(target, this.#origin, this.#deps, this.#entry, this);
    this.#search.start();
  }

  #passThrough(upstream: Channel): void {
    this.#entry.path = 'passthrough';
    this.#entry.attempts = 1;
    this.#upstream = upstream;
    upstream.handler = {
      open: () => {
        if (!this.#over) this.#join(upstream, undefined);
      },
      data: () => {},
      end: () => {},
      drain: () => {},
      close: (why) => this.refuse(reasonOf(why), why.detail),
    };
  }

  /** The caller stays paused where its bytes cannot travel with the opening: then nothing has to be kept. */
  trying({ channel, viaAgent }: OpenedPath): void {
    this.#upstream = channel;
    for (const bytes of this.#replay) channel.write(bytes);
    if (this.#clientEnded) channel.end();
    if (viaAgent) this.#client.resume();
  }

  found({ channel, token }: FoundUpstream): void {
    this.#join(channel, token);
  }

  failed(reason: EndReason, detail: string | undefined): void {
    this.refuse(reason, detail);
  }

  #join(upstream: Channel, token: PickToken | undefined): void {
    this.#over = true;
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
    this.#leave();
    this.#entry.finish(why.reason === 'reset' ? 'client-reset' : reasonOf(why), why.detail);
  }
}

/**
 * Whether an exempt caller's connection may go on to where it was going: not to a strict service, which nobody reaches
 * past the agent, and not to a virtual address, behind which nothing stands.
 */
function mayPass(route: OutboundRoute, { ip }: OriginalDestination): boolean {
  if (route.kind === 'shared') return !route.strict;
  if (route.kind !== 'service' && route.kind !== 'instance') return false;
  const { mode, virtual } = route.service;
  return mode !== 'strict' && virtual?.includes(ip) !== true;
}
