import { MeshError } from '../model/errors.ts';
import { setCloseOnExec } from './descriptors.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

const WNOHANG = 1;

/**
 * Replaces this process's image: same process id, same children, and the descriptors in `keep` (0, 1 and 2 always).
 * Returns only by throwing, and then everything is as before. Nothing of this image runs afterwards: no exit handler,
 * no flush. The new image calls {@link setCloseOnExec} for the kept descriptors again.
 */
export function replaceImage(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  keep: readonly number[],
): never {
  // Node marks its own standard descriptors close-on-exec when it starts.
  const kept = [...new Set([0, 1, 2, ...keep])];
  for (const fd of kept) setCloseOnExec(fd, false);
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  libc.execve(program, [program, ...args, null], [...variables, null]);
  const errno = libc.errno();
  for (const fd of kept) setCloseOnExec(fd, true);
  throw new MeshError('system', 'kernel', `${program}: ${describeErrno('execve', errno)}`);
}

/** How a child ended. */
interface ChildEnd {
  readonly code: number | undefined;
  readonly signal: number | undefined;
}

/**
 * Asks for the end of a child that this image did not start itself (it was adopted over {@link replaceImage}, so Node
 * tells nothing about it): undefined while it lives, `gone` when it is no child of ours.
 */
export function reapChild(pid: number): ChildEnd | 'gone' | undefined {
  const status = new Int32Array(1);
  const result = libc.waitpid(pid, new Uint8Array(status.buffer), WNOHANG);
  if (result === 0) return undefined;
  if (result < 0) return 'gone';
  const signal = status[0]! & 0x7f;
  return signal === 0 ? { code: (status[0]! >> 8) & 0xff, signal: undefined } : { code: undefined, signal };
}
