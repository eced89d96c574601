import { readdirSync } from 'node:fs';
import { MeshError } from '../model/errors.ts';
import { F_GETFD, F_SETFD, FD_CLOEXEC } from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

const RLIMIT_NOFILE = 7;

/** Says whether a descriptor is closed when this process, or a child of it, executes another program. */
export function setCloseOnExec(fd: number, close: boolean): void {
  const flags = libc.fcntl(fd, F_GETFD, 0);
  const wanted = close ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC;
  if (flags < 0 || libc.fcntl(fd, F_SETFD, wanted) < 0) {
    throw new MeshError('system', 'kernel', `descriptor ${fd}: ${describeErrno('fcntl', libc.errno())}`);
  }
}

/** Closes a descriptor that has no owner with a method for it, such as a listening socket that was passed on. */
export function closeDescriptor(fd: number): void {
  libc.close(fd);
}

/** Descriptors that this process has open. Reads a directory: for limits and tests, not for every connection. */
export function countDescriptors(): number {
  return readdirSync('/proc/self/fd').length - 1; // one is the directory itself
}

/** Raises the soft limit of open descriptors to the hard one; returns the limit that now holds. */
export function raiseDescriptorLimit(): number {
  const limits = new BigUint64Array(2);
  const bytes = new Uint8Array(limits.buffer);
  if (libc.prlimit(0, RLIMIT_NOFILE, null, bytes) < 0) {
    throw new MeshError('system', 'kernel', describeErrno('prlimit', libc.errno()));
  }
  const soft = limits[0]!;
  const hard = limits[1]!;
  if (soft >= hard) return Number(soft);
  limits[0] = hard;
  return Number(libc.prlimit(0, RLIMIT_NOFILE, bytes, null) < 0 ? soft : hard);
}
