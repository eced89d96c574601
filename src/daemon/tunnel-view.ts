import type { NodeName } from '../model/service.ts';

/** One tunnel, for `mesh-node status tunnels` and the metrics. */
export interface TunnelView {
  readonly peer: NodeName;
  readonly direction: 'dialled' | 'accepted';
  readonly state: string;
  readonly address: string;
  readonly streams: number;
  readonly roundTripMs: number | undefined;
  readonly since: number;
}
