/** Every way in which the mesh can fail a connection or an operation. A closed set: metrics and logs use it as a label. */
export const errorCodes = [
  'refused', // the other side refused the connection
  'timeout', // a named bound on time ran out
  'reset', // the connection was reset by the other side
  'unreachable', // no route, or the host is down
  'no-instance', // the service has no instance that may be used
  'no-service', // nobody knows the service
  'denied', // an identity may not do this
  'tls', // a handshake failed: certificate, version, name
  'protocol', // the peer broke the wire format
  'overload', // a named bound was reached: descriptors, streams, bytes
  'draining', // the agent or instance takes nothing new
  'loop', // a captured connection to the agent itself, or a relay that came back
  'tunnel-lost', // the tunnel that carried the stream ended
  'configuration', // what the operator wrote cannot be used
  'registry', // a registry is unreachable or answers nonsense
  'system', // the kernel refused a call
] as const;
export type ErrorCode = (typeof errorCodes)[number];

/** Whose fault it is. */
export type ErrorSource = 'caller' | 'callee' | 'peer' | 'agent' | 'registry' | 'operator' | 'kernel';

/**
 * The one error type of the project: what, whose fault, whether trying again elsewhere is safe, and why.
 * `retry: 'safe'` promises that no byte of the caller reached anybody.
 */
export class MeshError extends Error {
  override readonly name = 'MeshError';
  readonly code: ErrorCode;
  readonly source: ErrorSource;
  readonly retry: 'safe' | 'never';

  constructor(
    code: ErrorCode,
    source: ErrorSource,
    message: string,
    options: { readonly retry?: 'safe' | 'never'; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.source = source;
    this.retry = options.retry ?? 'never';
  }
}

/** What was thrown, in words. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
