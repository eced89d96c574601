import type { NodeName } from '../../model/service.ts';

/** One tunnel, for `mesh-node status tunnels` and the metrics. */
export interface TunnelView {
  readonly peer: NodeName;
  readonly direction: 'dialled' | 'accepted';
  readonly state: string;
  /** Of the peer: `address:port`, or `via relay` when it is reached in a stream of another tunnel. */
  readonly address: string;
  readonly streams: number;
  readonly roundTripMs: number | undefined;
  /** Milliseconds since the epoch. */
  readonly since: number;
}
