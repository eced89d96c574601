import { Sniffer } from '../detection/sniffer.ts';
import type { Channel, ChannelClose } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { Service } from '../model/service.ts';
import { Carriage } from './carriage.ts';
import type { ConnectionEntry } from './connections.ts';
import { FirstBytes } from './first-bytes.ts';
import type { Detected, DetectionDependencies } from './opening-dependencies.ts';
import type { Origin } from './origin.ts';
import type { OpenedPath, SearchDependencies } from './outbound-dependencies.ts';
import type { Begun, ProtocolHandler } from './protocols.ts';
import { reasonOf, UpstreamSearch } from './search.ts';
import type { FoundUpstream, SearchTarget, Seeker } from './seeker.ts';

export interface DetectorDependencies extends SearchDependencies, DetectionDependencies {
  /** Who carries what turns out to be HTTP. */
  readonly http: ProtocolHandler;
}

/** Carries connections to services of which nobody has said what they speak (`protocol: auto`). */
export class Detector {
  readonly #deps: DetectorDependencies;
  /** Services that spoke HTTP last: the next connection will, too, and then there are channels that are open already. */
  readonly #http = new WeakSet<Service>();

  constructor(dependencies: DetectorDependencies) {
    this.#deps = dependencies;
  }

  accept(client: Channel, entry: ConnectionEntry, origin: Origin, target: SearchTarget, begun?: Begun): void {
    const { enabled, serverFirstPorts } = this.#deps.detection();
    const skips = enabled && serverFirstPorts.includes(portOf(entry.start.destination));
    if (skips) {
      entry.detected = 'skipped-port';
      this.#deps.detected('skipped-port');
    }
    if (skips || !enabled) new Carriage(client, entry, this.#deps, begun).toward(target, origin);
    else {
      const { service } = target;
      const decided = (what: Detected) => this.#decided(entry, service, what);
      const detection = new Detection(client, entry, origin, target, this.#deps, decided);
      detection.start(this.#http.has(service), begun);
    }
  }

  #decided(entry: ConnectionEntry, service: Service, what: Detected): void {
    entry.detected = what;
    this.#deps.detected(what);
    if (what === 'http') this.#http.add(service);
    else if (what !== 'ended') this.#http.delete(service);
  }
}

/**
 * One connection whose protocol is being found out: the caller's bytes are held and looked at, while the way to an
 * instance is being opened. Whoever of both sides speaks first decides. Where HTTP is expected the way is opened only
 * when the caller has said nothing for a while.
 *
 * `looking` → `waiting` (it is HTTP; the way is still being opened) → `over`, and `looking` → `over`.
 */
class Detection implements Seeker {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  readonly #origin: Origin;
  readonly #target: SearchTarget;
  readonly #deps: DetectorDependencies;
  readonly #decided: (what: Detected) => void;
  readonly #search: UpstreamSearch;
  readonly #first: FirstBytes;
  #state: 'looking' | 'waiting' | 'over' = 'looking';
  #searching = false;
  /** The attempt at hand. */
  #opened: OpenedPath | undefined;
  #found: FoundUpstream | undefined;
  #foundAt = 0;
  /** No instance could be reached. What the caller says decides how it is told so. */
  #failure: { readonly reason: EndReason; readonly detail: string | undefined } | undefined;
  /** Who carries it in the end, and is told of the search from then on. */
  #carriage: Carriage | undefined;
  /** Takes the bound on waiting for the caller, or for the way, back. */
  #patience: () => void = () => {};

  constructor(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    target: SearchTarget,
    dependencies: DetectorDependencies,
    decided: (what: Detected) => void,
  ) {
    this.#client = client;
    this.#entry = entry;
    this.#origin = origin;
    this.#target = target;
    this.#deps = dependencies;
    this.#decided = decided;
    entry.abort = (end) => this.#refuse(end.reason, end.detail);
    this.#search = new UpstreamSearch(target, origin, dependencies, entry, this);
    const { timeout } = dependencies.detection();
    this.#first = new FirstBytes(
      client,
      new Sniffer(false),
      timeout,
      (ms, expired) => dependencies.after(ms, expired),
      { seen: ({ protocol }) => this.#decide(protocol), gone: (why) => this.#gone(why) },
    );
  }

  /** `expected`: it will be HTTP, in all likelihood. */
  start(expected: boolean, begun: Begun | undefined): void {
    if (expected) this.#patience = this.#deps.after(this.#deps.detection().timeout, () => this.#open());
    else this.#open();
    this.#first.start(begun);
  }

  #open(): void {
    this.#searching = true;
    this.#search.start();
  }

  // The search.

  trying(opened: OpenedPath): void {
    if (this.#carriage === undefined) this.#opened = opened;
    else this.#carriage.trying(opened);
  }

  found(upstream: FoundUpstream): void {
    this.#foundAt = performance.now();
    if (this.#carriage !== undefined) this.#carriage.found(upstream);
    else if (this.#state === 'waiting') this.#handOver(upstream);
    else this.#listen(upstream);
  }

  failed(reason: EndReason, detail: string | undefined): void {
    if (this.#carriage !== undefined) this.#carriage.failed(reason, detail);
    else if (this.#state === 'waiting') this.#handOver(undefined);
    else {
      this.#failure = { reason, detail };
      this.#first.expire();
    }
  }

  /** The way is open, and nobody has said anything. */
  #listen(upstream: FoundUpstream): void {
    this.#found = upstream;
    const { channel } = upstream;
    channel.handler = {
      data: (bytes, more) => {
        if (this.#speaksFirst('server-first')) channel.handler.data(bytes, more);
      },
      end: () => {
        if (this.#speaksFirst('ended')) channel.handler.end();
      },
      drain: () => {},
      close: (why) => {
        if (this.#speaksFirst('ended')) channel.handler.close(why);
      },
    };
    channel.resume();
  }

  /** The service does something before its caller has said what it speaks: from now on the channel is a relay's. */
  #speaksFirst(what: 'server-first' | 'ended'): boolean {
    if (this.#state !== 'looking') return false;
    this.#first.stop();
    this.#decide(what);
    return true;
  }

  #decide(what: Detected): void {
    this.#state = 'over';
    this.#patience();
    this.#decided(what);
    const settled = !this.#searching || this.#found !== undefined || this.#failure !== undefined;
    if (what !== 'http') this.#carry();
    else if (settled) this.#handOver(this.#found);
    else {
      this.#state = 'waiting';
      this.#patience = this.#deps.after(this.#deps.settings().agentPatience, () => {
        this.#search.cancel();
        this.#handOver(undefined);
      });
    }
  }

  #carry(): void {
    if (this.#failure !== undefined) {
      this.#reset(this.#failure.reason, this.#failure.detail);
      return;
    }
    this.#carriage = new Carriage(this.#client, this.#entry, this.#deps, this.#first.begun);
    if (!this.#searching) this.#carriage.toward(this.#target, this.#origin);
    else if (this.#found === undefined) this.#carriage.follow(this.#search, this.#opened);
    else this.#carriage.along(this.#found);
  }

  /** HTTP looks for an instance itself where there is none yet, and answers where there is none at all. */
  #handOver(opened: FoundUpstream | undefined): void {
    this.#patience();
    this.#state = 'over';
    const begun: Begun =
      opened === undefined ? this.#first.begun : { ...this.#first.begun, opened, openedAt: this.#foundAt };
    this.#deps.http(this.#client, this.#entry, this.#origin, this.#target, begun);
  }

  // The end.

  #refuse(reason: EndReason, detail: string | undefined): void {
    if (this.#state === 'over') return;
    this.#leave();
    this.#first.stop();
    this.#reset(reason, detail);
  }

  #reset(reason: EndReason, detail: string | undefined): void {
    this.#client.reset(resetCode(reason));
    this.#entry.finish(reason, detail);
  }

  #gone(why: ChannelClose): void {
    if (this.#state === 'over') return;
    this.#leave();
    this.#entry.finish(why.reason === 'reset' ? 'client-reset' : reasonOf(why), why.detail);
  }

  #leave(): void {
    if (this.#state === 'looking') this.#decided('ended');
    this.#state = 'over';
    this.#patience();
    this.#search.cancel();
    this.#found?.channel.reset();
    this.#found?.token.finished();
  }
}

/** Port of an address in its text form. */
function portOf(endpoint: string): number {
  return Number(endpoint.slice(endpoint.lastIndexOf(':') + 1));
}
