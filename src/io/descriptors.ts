import { readdirSync, statSync } from 'node:fs';
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

/**
 * Descriptors that this process has open, when the kernel (6.2 and later) keeps the count: costs one call and needs no
 * descriptor. Undefined on older ones.
 */
export function countedDescriptors(): number | undefined {
  const { size } = statSync('/proc/self/fd');
  return size === 0 ? undefined : size;
}

/**
 * Descriptors that this process has open. On older kernels it reads a directory, some milliseconds for ten thousand:
 * not for every connection. Throws when that takes the one descriptor too many.
 */
export function countDescriptors(): number {
  return countedDescriptors() ?? readdirSync('/proc/self/fd').length - 1; // one is the directory itself
}

const limits = new BigUint64Array(2);
const limitBytes = new Uint8Array(limits.buffer);

function readLimits(): { readonly soft: bigint; readonly hard: bigint } {
  if (libc.prlimit(0, RLIMIT_NOFILE, null, limitBytes) < 0) {
    throw new MeshError('system', 'kernel', describeErrno('prlimit', libc.errno()));
  }
  return { soft: limits[0]!, hard: limits[1]! };
}

/** Descriptors that this process may have open now: others can change it while it runs. */
export function descriptorLimit(): number {
  return Number(readLimits().soft);
}

/** Raises the soft limit of open descriptors to the hard one; returns the limit that now holds. */
export function raiseDescriptorLimit(): number {
  const { soft, hard } = readLimits();
  if (soft >= hard) return Number(soft);
  limits[0] = hard;
  return Number(libc.prlimit(0, RLIMIT_NOFILE, limitBytes, null) < 0 ? soft : hard);
}
