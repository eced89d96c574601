import { MeshError } from '../model/errors.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from './constants.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

/** Two connected unix stream sockets, non-blocking and close-on-exec. Each end has to be closed by whoever takes it. */
export function createSocketPair(): readonly [number, number] {
  const pair = new Int32Array(2);
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (libc.socketpair(AF_UNIX, type, 0, new Uint8Array(pair.buffer)) < 0) {
    const errno = libc.errno();
    throw new MeshError('system', 'kernel', describeErrno('socketpair', errno));
  }
  return [pair[0]!, pair[1]!];
}
