import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import { type EndReason, resetCode } from '../model/connection.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Origin } from './origin.ts';
import type { OpenedPath, PickToken, SearchDependencies } from './outbound-dependencies.ts';
import type { Begun } from './protocols.ts';
import { Relay } from './relay.ts';
import { reasonOf, UpstreamSearch } from './search.ts';
import type { FoundUpstream, SearchTarget, Seeker } from './seeker.ts';
import { whenSilent } from './silence.ts';

/**
 * A connection that is carried as it is, whatever it speaks, while its upstream is being found. Holds the caller's first
 * bytes for as long as another instance may still be tried, and hands over to a Relay with the first upstream that opens.
 */
export class Carriage implements ChannelHandler, Seeker {
  readonly #client: Channel;
  readonly #entry: ConnectionEntry;
  readonly #deps: SearchDependencies;
  #search: UpstreamSearch | undefined;
  #upstream: Channel | undefined;
  #replay: Uint8Array[] = [];
  #replayBytes = 0;
  #clientEnded = false;
  #over = false;

  /** Takes the caller's channel over, paused. `begun`: what was read of it before. */
  constructor(client: Channel, entry: ConnectionEntry, deps: SearchDependencies, begun?: Begun) {
    this.#client = client;
    this.#entry = entry;
    this.#deps = deps;
    client.handler = this;
    entry.abort = (end) => this.#refuse(end.reason, end.detail);
    if (begun === undefined) return;
    this.#replay = [...begun.bytes];
    for (const { length } of begun.bytes) this.#replayBytes += length;
    this.#clientEnded = begun.ended;
  }

  /** Finds an instance. */
  toward(target: SearchTarget, origin: Origin): void {
    if (this.#heldBack()) return;
    this.#search = new UpstreamSearch(target, origin, this.#deps, this.#entry, this);
    this.#search.start();
  }

  /** Goes on with a search whose seeker passes on what it is told; `opened` is the attempt at hand. */
  follow(search: UpstreamSearch, opened: OpenedPath | undefined): void {
    this.#search = search;
    if (!this.#heldBack() && opened !== undefined) this.trying(opened);
  }

  /** Goes by a way that is open already, and on which nothing was written. */
  along({ channel, token }: FoundUpstream): void {
    this.#upstream = channel;
    if (this.#heldBack()) {
      token.finished();
      return;
    }
    const room = this.#say(channel);
    this.#join(channel, token, room);
  }

  /** Goes on to where the connection was going. */
  past(upstream: Channel): void {
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
      close: (why) => this.#refuse(reasonOf(why), why.detail),
    };
    this.#say(upstream);
  }

  /** Refuses a connection that is over a rate limit. */
  #heldBack(): boolean {
    const limit = this.#deps.overRate?.(this.#entry);
    if (limit === undefined) return false;
    this.#refuse('overload', `rate limit: ${limit}`);
    return true;
  }

  /** Refuses the caller with an immediate reset: it believes that it is connected, so silence would be a lie. */
  #refuse(reason: EndReason, detail: string | undefined): void {
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

  /** Writes what the caller has said so far; answers whether there is room for more. */
  #say(channel: Channel): boolean {
    let room = true;
    for (const bytes of this.#replay) room = channel.write(bytes);
    if (this.#clientEnded) channel.end();
    return room;
  }

  /** The caller stays paused where its bytes cannot travel with the opening: then nothing has to be kept. */
  trying({ channel, viaAgent }: OpenedPath): void {
    this.#upstream = channel;
    this.#say(channel);
    if (viaAgent && this.#replayBytes < this.#deps.settings().replayBuffer) this.#client.resume();
  }

  found({ channel, token }: FoundUpstream): void {
    this.#join(channel, token);
  }

  failed(reason: EndReason, detail: string | undefined): void {
    this.#refuse(reason, detail);
  }

  #join(upstream: Channel, token: PickToken | undefined, room = true): void {
    this.#over = true;
    const entry = this.#entry;
    const client = this.#client;
    let attended = () => {};
    const relay = new Relay(client, upstream, (end) => {
      attended();
      token?.finished();
      entry.finish(end.reason, end.detail);
    });
    relay.account(this.#replayBytes, this.#clientEnded);
    this.#replay = [];
    entry.relay = relay;
    entry.abort = (end) => relay.abort(end);
    const idle = entry.service === undefined ? 0 : (this.#deps.policy(entry.service).timeouts?.idle ?? 0);
    if (idle > 0) {
      const said = () => relay.bytesSent + relay.bytesReceived - client.pendingBytes - upstream.pendingBytes;
      attended = whenSilent(idle, said, this.#deps.after, () =>
        relay.abort({ reason: 'timeout', detail: 'no byte went either way for too long' }),
      );
    }
    upstream.resume();
    // Without room its drain resumes the caller.
    if (room) this.#client.resume();
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
