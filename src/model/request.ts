import type { Caller } from './caller.ts';
import type { ConnectionPath, EndReason, FailedAttempt } from './connection.ts';
import type { InstanceId, NodeName, ServiceName } from './service.ts';

/**
 * The rule of HTTP that a message broke. A closed set: metrics, the access log and the `mesh-error` header use it as
 * a label. What each of them means and which status answers it stands with the codec.
 */
export type RefusalReason =
  | 'request-line'
  | 'method-unknown'
  | 'target-invalid'
  | 'start-line-too-long'
  | 'version-unsupported'
  | 'status-line'
  | 'line-end'
  | 'field-name'
  | 'field-value'
  | 'obs-fold'
  | 'head-too-large'
  | 'too-many-fields'
  | 'host-missing'
  | 'host-repeated'
  | 'host-invalid'
  | 'connection-invalid'
  | 'upgrade-invalid'
  | 'expectation-unknown'
  | 'length-invalid'
  | 'length-repeated'
  | 'length-and-coding'
  | 'coding-repeated'
  | 'coding-not-chunked'
  | 'coding-unknown'
  | 'coding-version'
  | 'content-unexpected'
  | 'chunk-size'
  | 'chunk-extension'
  | 'chunk-end'
  | 'trailer-field'
  | 'trailers-too-large'
  | 'upgrade-unasked'
  | 'interim-last'
  | 'too-many-interim'
  | 'unasked-response'
  | 'incomplete';

/** What a policy makes of a request: the agent answers it by itself, or ends it. */
export const policyReasons = [
  'request-timeout', // it took longer than it may in all
  'stream-timeout', // for too long no byte went either way
  'rate-limit', // it came too soon
  'redirect', // its caller is sent elsewhere
  'fault', // a fault that somebody put in for a test
] as const;
export type PolicyReason = (typeof policyReasons)[number];

/** Why a request ended: as a connection does, by a policy, or because it or its answer broke a rule. */
export type RequestEndReason = EndReason | PolicyReason | RefusalReason;

/** What is written down of one request, at its end: the access log line and its metrics. */
export interface RequestRecord {
  /** `<id of the caller's connection>.<n>`, n from 1. */
  readonly id: string;
  /** Milliseconds since the epoch, when its head was there. */
  readonly startedAt: number;
  /** To the end of its answer; of an upgraded one, to the end of what came after. */
  readonly durationMs: number;
  readonly callerNode: NodeName | undefined;
  readonly callerService: ServiceName | undefined;
  /** The program that called, on this host. */
  readonly caller: Caller | undefined;
  /** The program that called, in one word. */
  readonly callerProgram: string | undefined;
  /** Text of the caller's address as seen here. */
  readonly callerAddress: string;
  readonly service: ServiceName | undefined;
  /** Name of the route that it took; undefined: there is none for it. */
  readonly route: string | undefined;
  /** The instance that was asked last. */
  readonly instance: InstanceId | undefined;
  /** Zone of the instance. */
  readonly zone: string | undefined;
  /** `none`: no byte went to an instance. */
  readonly path: ConnectionPath;
  /** Undefined, as authority and target are: the request was refused before it was read that far. */
  readonly method: string | undefined;
  /** Host and port that the caller asked for, as it wrote them. */
  readonly authority: string | undefined;
  /** As the caller wrote it, with the query; at most as long as a request line may be. */
  readonly target: string | undefined;
  /** What the caller was told, by an instance or by the agent itself. 0: nothing. */
  readonly status: number;
  /** Content only, from the caller to the instance. */
  readonly requestBytes: number;
  /** Content only, to the caller. */
  readonly responseBytes: number;
  /** Instances tried. */
  readonly attempts: number;
  /** Those that failed, in order; absent: none did. */
  readonly failures?: readonly FailedAttempt[] | undefined;
  /** It went on an upstream channel that had carried a request before. */
  readonly reused: boolean;
  readonly reason: RequestEndReason;
  /** One sentence for people; never used as a label. */
  readonly detail: string | undefined;
  /** Of its `traceparent`: 32 hexadecimal digits. */
  readonly traceId: string | undefined;
}

/** Is told of requests. Exactly one `ended` for each `started`, also of those that are refused. */
export interface RequestSink {
  started(): void;
  ended(record: RequestRecord): void;
}
