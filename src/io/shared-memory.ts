import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { MeshError } from '../model/errors.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;

/**
 * Memory that every process has which maps the same file: made when it is not there, zeros at first. It stays mapped until
 * the process ends. Throws when the file cannot be made or is not of this size.
 */
export function mapShared(path: string, size: number): ArrayBuffer {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  try {
    const file = fstatSync(fd);
    // Whoever truncates a mapped file kills those who touch it: only this user may write to it.
    if (!file.isFile() || file.uid !== process.geteuid!() || file.size > size) {
      throw new MeshError('system', 'kernel', `${path} is not a file of this user of ${size} bytes`);
    }
    // Allocated, not only lengthened: a full file system has to say so here, and not by SIGBUS later. What others have
    // written meanwhile stays.
    const failed = file.size < size ? libc.posixFallocate(fd, 0, size) : 0;
    if (failed !== 0) throw new MeshError('system', 'kernel', describeErrno('posix_fallocate', failed));
    const memory = libc.mmap(null, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (libc.addressOf(memory) === 0xffff_ffff_ffff_ffffn || libc.addressOf(memory) === 0n) {
      throw new MeshError('system', 'kernel', describeErrno('mmap', libc.errno()));
    }
    return libc.viewOf(memory, size);
  } finally {
    closeSync(fd);
  }
}
