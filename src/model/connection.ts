import type { Caller } from './caller.ts';
import type { ErrorCode } from './errors.ts';
import type { InstanceId, NodeName, ServiceName } from './service.ts';

/** How a connection's bytes travelled. */
export const connectionPaths = [
  'passthrough', // unknown destination: to where it was going
  'direct', // to a known instance, without a tunnel
  'local', // to an instance on this host
  'tunnel', // through the mesh-node of the instance's host
  'relay', // through zone-agents
  'none', // nowhere: refused by us
] as const;
export type ConnectionPath = (typeof connectionPaths)[number];

/** Which side of the mesh this record was written on. */
export const connectionDirections = ['outbound', 'inbound', 'relay'] as const;
export type ConnectionDirection = (typeof connectionDirections)[number];

/** Why a connection ended: `done` when both halves ended by themselves, `client-reset` when the caller reset it. */
export const endReasons = ['done', 'client-reset'] as const;
export type EndReason = (typeof endReasons)[number] | ErrorCode;

/** The code with which the other side is reset when a connection ends for this reason. */
export function resetCode(reason: EndReason): ErrorCode {
  return reason === 'done' || reason === 'client-reset' ? 'reset' : reason;
}

/** An attempt to reach an instance that came to nothing. */
export interface FailedAttempt {
  readonly instance: InstanceId;
  readonly path: ConnectionPath;
  readonly reason: EndReason;
  readonly detail: string | undefined;
}

/** What is written down of one connection, at its end: the access log line and its metrics. */
export interface ConnectionRecord {
  /** `<worker>-<sequence>`, unique for the life of the agent. */
  readonly id: string;
  readonly direction: ConnectionDirection;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly durationMs: number;
  readonly callerNode: NodeName | undefined;
  readonly callerService: ServiceName | undefined;
  /** The program that called, on this host; inbound: undefined. */
  readonly caller: Caller | undefined;
  /** The program that called, in one word ({@link callerText}); inbound: as the caller's agent says. */
  readonly callerProgram: string | undefined;
  /** Text of the caller's address as seen here. */
  readonly callerAddress: string;
  /** Text of the address the caller asked for. */
  readonly destination: string;
  readonly service: ServiceName | undefined;
  readonly instance: InstanceId | undefined;
  /** Zone of the instance. */
  readonly zone: string | undefined;
  readonly path: ConnectionPath;
  /** From the caller to the service. */
  readonly bytesSent: number;
  /** From the service to the caller. */
  readonly bytesReceived: number;
  /** Instances tried. */
  readonly attempts: number;
  /** Those that failed, in order; absent: none did. */
  readonly failures?: readonly FailedAttempt[] | undefined;
  /** What access control denied or, in shadow, would have denied, and by which rule: the last of it. */
  readonly access: string | undefined;
  /** What came of finding out what it speaks, where nobody had said so (docs/protocols.md). */
  readonly detected?: string | undefined;
  readonly reason: EndReason;
  /** One sentence for people; never used as a label. */
  readonly detail: string | undefined;
}
