import { getSystemErrorName } from 'node:util';
import type { ErrorCode } from '../model/errors.ts';
import * as c from './constants.ts';

/** What an errno of a socket call means for the connection. */
export function errorCodeOf(errno: number): ErrorCode {
  switch (errno) {
    case c.ECONNREFUSED:
      return 'refused';
    case c.ETIMEDOUT:
      return 'timeout';
    case c.ECONNRESET:
    case c.ECONNABORTED:
    case c.EPIPE:
    case c.ENOTCONN:
      return 'reset';
    case c.ENETUNREACH:
    case c.EHOSTUNREACH:
    case c.ENETDOWN:
    case c.EHOSTDOWN:
    case c.EPERM: // connect() answered by a local DROP rule
    case c.EACCES: // connect() to a prohibited route
      return 'unreachable';
    case c.EMFILE:
    case c.ENFILE:
    case c.ENOBUFS:
    case c.ENOMEM:
    case c.EAGAIN: // connect() without a free local port, for bound sockets
    case c.EADDRNOTAVAIL: // connect() without a free local port
      return 'overload';
    default:
      return 'system';
  }
}

/** `connect: ECONNREFUSED`, for logs. */
export function describeErrno(call: string, errno: number): string {
  return errno === 0 ? `${call}: failed without a reason` : `${call}: ${getSystemErrorName(-errno)}`;
}
