import type { RedirectedConnection, SourcePortList } from '../../caller/source-ports.ts';
import type { Config } from '../../config/schema.ts';
import type { PolicySet } from '../../model/policy.ts';
import type { NodeName } from '../../model/service.ts';
import type { Claim, SnapshotDelta } from '../../model/snapshot.ts';
import type { ExemptNames } from '../../proxy/exempt-callers.ts';
import type { MetricsDelta } from '../../telemetry/counters.ts';
import type { WorkerEvent } from '../events.ts';
import type { Vitals } from '../guard/vitals.ts';
import type { WorkerHello } from '../succession/hello.ts';

/*
 * What supervisor and workers say to each other, over a socketpair of their own and not Node's IPC channel: it has to
 * survive an upgrade in which the supervisor replaces its own image. How they travel: channel.ts. What either end believes:
 * from-worker.ts, from-supervisor.ts.
 */

/** Everything a worker has to know beside the snapshot; sent at start and again at each reload. */
export interface WorkerSettings {
  readonly config: Config;
  readonly node: NodeName;
  /** True in `mesh-node zone-agent`. */
  readonly relay: boolean;
  /** Users and units that the allow-list names. */
  readonly exempt: ExemptNames;
  /** PEM texts; absent while this node has no certificate, then there are no tunnels. Workers read no files. */
  readonly credentials: { readonly key: string; readonly cert: string; readonly ca: string } | undefined;
}

/** Lists that a worker answers with. */
export const workerLists = ['connections', 'tunnels', 'ended', 'instances'] as const;
export type WorkerList = (typeof workerLists)[number];

/** The first items of a list, and how many there are. */
export interface WorkerListing {
  readonly items: readonly unknown[];
  readonly total: number;
}

export type ToWorker =
  | { readonly t: 'settings'; readonly settings: WorkerSettings }
  /**
   * `first`: forget what you had, this delta begins anew at its base. `more`: another one follows, and only with the
   * last one it is something to route by.
   */
  | {
      readonly t: 'delta';
      readonly delta: SnapshotDelta;
      readonly first: boolean;
      readonly more: boolean;
    }
  /** All policies, in the place of those before; the first ones come before `synced`. */
  | { readonly t: 'policies'; readonly policies: PolicySet }
  /** The whole catalogue was sent: begin to serve. */
  | { readonly t: 'synced' }
  | { readonly t: 'ping'; readonly id: number }
  /** `letGo`: of every listening socket, at once: they are for other processes now. */
  | { readonly t: 'drain'; readonly timeoutMs: number; readonly letGo: boolean }
  /** The supervisor replaces its own image: serve on until the next one is there. */
  | { readonly t: 'await' }
  | { readonly t: 'list'; readonly id: number; readonly list: WorkerList; readonly limit: number }
  | { readonly t: 'reopen-logs' }
  | { readonly t: 'source-ports'; readonly id: number; readonly ports: SourcePortList };

export type ToSupervisor =
  /** The first message to a supervisor that did not start this worker. */
  | { readonly t: 'hello'; readonly hello: WorkerHello }
  | { readonly t: 'ready' }
  | { readonly t: 'ack'; readonly version: number }
  /** It goes by these policies. */
  | { readonly t: 'policies'; readonly version: number }
  | { readonly t: 'pong'; readonly id: number }
  | { readonly t: 'metrics'; readonly delta: MetricsDelta }
  | { readonly t: 'vitals'; readonly vitals: Vitals }
  /** All that it holds for dead, whenever that changes. */
  | { readonly t: 'outages'; readonly down: readonly Claim[] }
  | { readonly t: 'event'; readonly event: WorkerEvent }
  | { readonly t: 'list'; readonly id: number; readonly listing: WorkerListing }
  /** Which ports the callers of these connections really have: only the supervisor may ask the kernel. */
  | {
      readonly t: 'source-ports';
      readonly id: number;
      readonly connections: readonly RedirectedConnection[];
    }
  | { readonly t: 'drained'; readonly cut: number };
