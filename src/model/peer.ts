import type { NodeName, ServiceName } from './service.ts';

/** What the certificate of the other end of a tunnel says; a peer is believed for this and for nothing else. */
export interface PeerIdentity {
  readonly node: NodeName;
  /** Services that this node may call as; `*` means any. */
  readonly callAs: ReadonlySet<ServiceName | '*'>;
  /** Services that this node may host; `*` means any. */
  readonly host: ReadonlySet<ServiceName | '*'>;
  /** True for a zone-agent: it may be asked to relay. */
  readonly relay: boolean;
  /** End of the certificate's life, milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** True when `granted` covers this service. */
export function grants(granted: ReadonlySet<ServiceName | '*'>, service: ServiceName): boolean {
  return granted.has('*') || granted.has(service);
}
