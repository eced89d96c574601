import * as libc from '../../../src/io/libc.ts';

/** An integer option of a socket, as the kernel has it. */
export function socketOption(fd: number, level: number, name: number): number {
  const value = new Int32Array(1);
  const size = new Uint32Array([4]);
  libc.getsockopt(fd, level, name, new Uint8Array(value.buffer), new Uint8Array(size.buffer));
  return value[0]!;
}
