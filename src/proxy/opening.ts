import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { OriginalDestination } from '../model/address.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import { Carriage } from './carriage.ts';
import type { ConnectionEntry } from './connections.ts';
import type { OutboundDependencies } from './opening-dependencies.ts';
import type { Origin } from './origin.ts';
import type { OutboundRoute } from './outbound-dependencies.ts';
import { reasonOf } from './search.ts';
import type { SearchTarget } from './seeker.ts';
import { SharedAddress } from './shared-address.ts';

/** A connection of which it is not yet known where it goes; its caller is paused. */
export class Opening implements ChannelHandler {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  #origin: Origin;
  readonly #deps: OutboundDependencies;
  #over = false;

  constructor(client: Channel, entry: ConnectionEntry, origin: Origin, deps: OutboundDependencies) {
    this.#client = client;
    this.#entry = entry;
    this.#origin = origin;
    this.#deps = deps;
    client.handler = this;
    entry.abort = (end) => this.refuse(end.reason, end.detail);
  }

  /** Hands the connection to whoever carries it. `exempt`: nothing of this caller is touched. */
  start(destination: OriginalDestination, exempt: boolean): void {
    if (this.#over) return;
    this.#lookAgain();
    const known = this.#deps.route(destination);
    const route: OutboundRoute = exempt && mayPass(known, destination) ? { kind: 'passthrough' } : known;
    if (route.kind === 'refuse') {
      this.refuse(route.reason);
      return;
    }
    this.#over = true;
    switch (route.kind) {
      case 'passthrough':
        new Carriage(this.#client, this.#entry, this.#deps).past(this.#deps.direct(destination));
        return;
      case 'instance':
        this.#toward({ service: route.service, instance: route.instance });
        return;
      case 'shared':
        new SharedAddress(this.#client, this.#entry, this.#origin, destination, route, this.#deps).start();
        return;
      case 'service':
        this.#toward({ service: route.service, instance: undefined });
    }
  }

  /** Hands the connection to the explicit proxy, to which it was made. */
  startExplicit(): void {
    if (this.#over) return;
    this.#lookAgain();
    this.#over = true;
    this.#deps.explicit(this.#client, this.#entry, this.#origin);
  }

  /** The caller may have got its name since the connection came. */
  #lookAgain(): void {
    const { callerProgram } = this.#entry;
    if (callerProgram !== this.#origin.program) this.#origin = { ...this.#origin, program: callerProgram };
  }

  /** Refuses the caller with an immediate reset: it believes that it is connected, so silence would be a lie. */
  refuse(reason: EndReason, detail?: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#client.reset(resetCode(reason));
    this.#entry.finish(reason, detail);
  }

  #toward(target: SearchTarget): void {
    const { service } = target;
    this.#entry.service = service.name;
    const handler = this.#deps.protocols[service.protocol];
    if (handler !== undefined) handler(this.#client, this.#entry, this.#origin, target);
    else new Carriage(this.#client, this.#entry, this.#deps).toward(target, this.#origin);
  }

  // The caller's side: it is paused, and may go.

  data(): void {}

  end(): void {}

  drain(): void {}

  close(why: ChannelClose): void {
    if (this.#over) return;
    this.#over = true;
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
