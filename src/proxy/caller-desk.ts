import { type Identity, Naming } from '../caller/identity.ts';
import { Shares } from '../caller/shares.ts';
import type { ClientAddress, Endpoint } from '../model/address.ts';
import type { ConnectionEntry } from './connections.ts';

/** Who says which program is behind a connection. */
interface Identifier {
  local(client: Endpoint, destination: Endpoint, listener: Endpoint): Identity | Naming;
  bridged(client: Endpoint): Identity | Naming;
}

export interface CallerDeskOptions {
  /** Undefined while nobody is asked (`caller.identify`). */
  identifier(): Identifier | undefined;
  /** Connections that one caller may have. */
  most(): number;
  /** A connection of this caller was one too many. */
  onRefused(caller: string): void;
}

/** Where outbound connections say who they are: writes it down, and lets nobody have more than a share of all. */
export class CallerDesk {
  readonly #options: CallerDeskOptions;
  readonly #shares = new Shares();

  constructor(options: CallerDeskOptions) {
    this.#options = options;
  }

  /**
   * Identifies a connection and counts it until its end. Answers why it has to be refused, or undefined. A name that is
   * not known yet holds nothing up: the connection goes on, and what is written down of it waits for the name.
   */
  admit(
    entry: ConnectionEntry,
    client: ClientAddress,
    destination: Endpoint,
    listener: Endpoint,
  ): string | undefined {
    const identifier = this.#options.identifier();
    if (identifier === undefined) return undefined;
    const found = isLoopback(listener)
      ? identifier.local(client, destination, listener)
      : identifier.bridged(client);
    return found instanceof Naming ? this.#later(entry, found, client) : this.#now(entry, found, client);
  }

  #now(entry: ConnectionEntry, identity: Identity, client: ClientAddress): string | undefined {
    write(entry, identity);
    const refusal = this.#count(entry, keyOf(identity, client));
    if (refusal !== undefined) this.#options.onRefused(identity.text);
    return refusal;
  }

  /** Counted by itself until its caller has a name, and then as that caller's: that may still be one too many. */
  #later(entry: ConnectionEntry, naming: Naming, client: ClientAddress): string | undefined {
    write(entry, naming.meanwhile);
    const refusal = this.#count(entry, naming.countedAs);
    const waits = naming.wait((identity) => {
      entry.naming = undefined;
      const { share } = entry;
      if (share === undefined) {
        write(entry, identity);
        if (refusal !== undefined) this.#options.onRefused(identity.text);
        return;
      }
      share.leave();
      const late = this.#now(entry, identity, client);
      if (late !== undefined) entry.abort({ reason: 'overload', detail: late });
    });
    if (waits) entry.naming = naming;
    return refusal ?? (waits ? undefined : 'too many connections before the name of their caller was known');
  }

  /** Counts a connection as its caller's; or says why it is one too many. */
  #count(entry: ConnectionEntry, key: string): string | undefined {
    const most = this.#options.most();
    entry.share = this.#shares.take(key, most);
    return entry.share === undefined
      ? `limits.callerPercent: this caller has ${most} connections already`
      : undefined;
  }
}

function write(entry: ConnectionEntry, { caller, text }: Identity): void {
  entry.caller = caller;
  entry.callerProgram = text;
}

/** Of callers that nobody knows only the address tells them apart. */
function keyOf({ text }: Identity, client: ClientAddress): string {
  return text === 'unknown' ? client.ip : text;
}

function isLoopback({ ip }: Endpoint): boolean {
  return ip === '::1' || ip.startsWith('127.');
}
