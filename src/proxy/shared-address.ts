import { Sniffer } from '../detection/sniffer.ts';
import type { Channel, ChannelClose } from '../io/channel.ts';
import type { OriginalDestination } from '../model/address.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { Service } from '../model/service.ts';
import { Carriage } from './carriage.ts';
import type { ConnectionEntry } from './connections.ts';
import { FirstBytes, type Seen } from './first-bytes.ts';
import type { Detected, OutboundDependencies } from './opening-dependencies.ts';
import type { Origin } from './origin.ts';
import type { OutboundRoute } from './outbound-dependencies.ts';
import { reasonOf } from './search.ts';

type SharedRoute = Extract<OutboundRoute, { kind: 'shared' }>;

/**
 * A connection to an address that several services share. What its caller says tells them apart, so nothing is dialled
 * before: the name in the hello of TLS, which goes on untouched, or the Host of each request of HTTP. What names none of
 * them goes on to the address itself, unless one of them is strict; also a server that speaks first is one of those.
 */
export class SharedAddress {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  readonly #origin: Origin;
  readonly #destination: OriginalDestination;
  readonly #route: SharedRoute;
  readonly #deps: OutboundDependencies;
  readonly #first: FirstBytes;
  #over = false;

  constructor(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    destination: OriginalDestination,
    route: SharedRoute,
    deps: OutboundDependencies,
  ) {
    this.#client = client;
    this.#entry = entry;
    this.#origin = origin;
    this.#destination = destination;
    this.#route = route;
    this.#deps = deps;
    entry.abort = (end) => {
      if (!this.#over) this.#detected('ended');
      this.#refuse(end.reason, end.detail);
    };
    this.#first = new FirstBytes(
      client,
      new Sniffer(true),
      deps.detection().timeout,
      (ms, expired) => deps.after(ms, expired),
      { seen: (what) => this.#decide(what), gone: (why) => this.#gone(why) },
    );
  }

  /** Waits for the caller's word, within the bound of detection. */
  start(): void {
    const { enabled, serverFirstPorts } = this.#deps.detection();
    if (!enabled) {
      this.#first.stop();
      this.#onward();
    } else if (serverFirstPorts.includes(this.#destination.port)) {
      this.#first.stop();
      this.#detected('skipped-port');
      this.#onward();
    } else {
      this.#first.expire();
      this.#first.start();
    }
  }

  #detected(what: Detected): void {
    this.#entry.detected = what;
    this.#deps.detected(what);
  }

  #decide(what: Seen): void {
    this.#detected(what.protocol);
    if (what.protocol === 'http') {
      this.#over = true;
      this.#deps.httpAt(this.#client, this.#entry, this.#origin, this.#destination, this.#first.begun);
      return;
    }
    const name = what.protocol === 'tls' ? what.name : undefined;
    const service = name === undefined ? undefined : this.#deps.named(this.#route.services, name);
    if (service === undefined) this.#onward();
    else this.#toward(service);
  }

  #toward(service: Service): void {
    this.#over = true;
    this.#entry.service = service.name;
    const carriage = new Carriage(this.#client, this.#entry, this.#deps, this.#first.begun);
    carriage.toward({ service, instance: undefined }, this.#origin);
  }

  #onward(): void {
    if (this.#route.strict) {
      this.#refuse('configuration', 'services share the address, one is strict, and none of them is named');
      return;
    }
    this.#over = true;
    const upstream = this.#deps.direct(this.#destination);
    new Carriage(this.#client, this.#entry, this.#deps, this.#first.begun).past(upstream);
  }

  #refuse(reason: EndReason, detail: string | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#first.stop();
    this.#client.reset(resetCode(reason));
    this.#entry.finish(reason, detail);
  }

  #gone(why: ChannelClose): void {
    if (this.#over) return;
    this.#over = true;
    this.#detected('ended');
    this.#entry.finish(why.reason === 'reset' ? 'client-reset' : reasonOf(why), why.detail);
  }
}
