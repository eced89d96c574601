import type { Channel } from '../io/channel.ts';
import {
  type ClientAddress,
  type Endpoint,
  endpointKey,
  type OriginalDestination,
} from '../model/address.ts';
import type { ConnectionEntry, Connections } from './connections.ts';
import { Opening } from './opening.ts';
import type { OutboundDependencies } from './opening-dependencies.ts';

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

  /**
   * A connection to the explicit proxy itself, at this address: its caller is identified and counted like any other, and says
   * where it would like to go. The allow-list keeps nobody away who comes by himself.
   */
  acceptExplicit(client: Channel, from: ClientAddress, at: Endpoint): void {
    const entry = this.#entry(from, at);
    const refusal = this.dependencies.admit(entry, from, at, at);
    const opening = this.#begin(client, from, entry);
    if (refusal !== undefined) opening.refuse('overload', refusal);
    else this.#whenNamed(entry, () => opening.startExplicit());
  }

  #start(opening: Opening, entry: ConnectionEntry, destination: OriginalDestination): void {
    const { dependencies } = this;
    this.#whenNamed(entry, () => opening.start(destination, dependencies.exempt(entry) === true));
  }

  /** A caller whose name decides what becomes of it waits for it, within its bound; others never do. */
  #whenNamed(entry: ConnectionEntry, then: () => void): void {
    const waits = this.dependencies.exempt(entry) === undefined || this.#mustBeNamed(entry);
    if (!waits || !entry.naming!.wait(then)) then();
  }

  #mustBeNamed({ naming }: ConnectionEntry): boolean {
    return naming !== undefined && this.dependencies.needsNames();
  }

  /** Resets a connection that is one too many, and writes it down. */
  refuse(client: Channel, from: ClientAddress, destination: Endpoint): void {
    this.#begin(client, from, this.#entry(from, destination)).refuse(
      'overload',
      'limits.connections is reached',
    );
  }

  #begin(client: Channel, from: ClientAddress, entry: ConnectionEntry): Opening {
    const known = { address: from, program: entry.callerProgram };
    const origin = this.dependencies.needsNames()
      ? {
          ...known,
          noted: (what: string) => {
            entry.access = what;
          },
        }
      : known;
    return new Opening(client, entry, origin, this.dependencies);
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
