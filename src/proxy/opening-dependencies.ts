import type { Channel } from '../io/channel.ts';
import type { ClientAddress, Endpoint, OriginalDestination } from '../model/address.ts';
import type { NodeName, Service, ServiceName } from '../model/service.ts';
import type { ConnectionEntry } from './connections.ts';
import type { Seen } from './first-bytes.ts';
import type { Origin } from './origin.ts';
import type { OutboundRoute, SearchDependencies } from './outbound-dependencies.ts';
import type { Begun, ProtocolHandlers } from './protocols.ts';

export interface DetectionSettings {
  /** False: what nobody has said a protocol of is carried as it is. */
  readonly enabled: boolean;
  /** Bound on holding bytes, in ms. */
  readonly timeout: number;
  /** Destination ports where the server speaks first: nothing is looked at. */
  readonly serverFirstPorts: readonly number[];
}

/** What came of looking at a connection: what its caller speaks, or why that was not found out. */
export type Detected = Seen['protocol'] | 'server-first' | 'skipped-port';

/** What finding out a protocol needs. */
export interface DetectionDependencies {
  detection(): DetectionSettings;
  detected(what: Detected): void;
}

/** What an outbound connection needs from the stages; composed in the worker. */
export interface OutboundDependencies extends SearchDependencies, DetectionDependencies {
  route(destination: OriginalDestination): OutboundRoute;
  /** To where a connection was going. */
  direct(endpoint: Endpoint): Channel;
  readonly protocols: ProtocolHandlers;
  /** Takes a connection over that speaks HTTP to an address which several services share. */
  httpAt(
    client: Channel,
    entry: ConnectionEntry,
    origin: Origin,
    destination: OriginalDestination,
    begun: Begun,
  ): void;
  /** Takes a connection over that was made to the explicit proxy. */
  explicit(client: Channel, entry: ConnectionEntry, origin: Origin): void;
  /** The one of these services that has this name; in any case, and perhaps below the domain of the mesh. */
  named(services: readonly Service[], name: string): Service | undefined;
  readonly callerNode: NodeName;
  callerService(): ServiceName | undefined;
  /** Finds out who calls, for the entry; answers why the connection must be refused, or undefined. */
  admit(entry: ConnectionEntry, from: ClientAddress, to: Endpoint, listener: Endpoint): string | undefined;
  /** Whether the allow-list names the caller; undefined until its name is known (`entry.naming`). */
  exempt(entry: ConnectionEntry): boolean | undefined;
  /** Whether what a caller may do depends on its name, so that nothing is begun before that is known. */
  needsNames(): boolean;
}
