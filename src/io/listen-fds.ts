import { setCloseOnExec } from './descriptors.ts';

/** First descriptor that systemd passes (SD_LISTEN_FDS_START). */
const FIRST = 3;

/** A descriptor that the service manager opened for us. */
interface ListenDescriptor {
  readonly fd: number;
  /** FileDescriptorName= of its socket unit; `unknown` when it has none. */
  readonly name: string;
}

/** Numbers of the descriptors that the service manager passed to this process, for an image that replaces it. */
export function listenDescriptors(environment: NodeJS.ProcessEnv, pid: number): number[] {
  const count = Number(environment['LISTEN_FDS']);
  const meant = Number(environment['LISTEN_PID']) === pid;
  if (!meant || !Number.isSafeInteger(count) || count <= 0) return [];
  return Array.from({ length: count }, (_, i) => FIRST + i);
}

/**
 * Descriptors of socket activation (sd_listen_fds(3)), in the manager's order; none when they are meant for another
 * process. Marks them close-on-exec, and takes the variables out of `environment`, so that no child believes them.
 */
export function takeListenDescriptors(environment: NodeJS.ProcessEnv, pid: number): ListenDescriptor[] {
  const descriptors = listenDescriptors(environment, pid);
  const names = environment['LISTEN_FDNAMES']?.split(':') ?? [];
  delete environment['LISTEN_FDS'];
  delete environment['LISTEN_PID'];
  delete environment['LISTEN_FDNAMES'];
  return descriptors.map((fd, i) => {
    setCloseOnExec(fd, true);
    return { fd, name: names[i] || 'unknown' };
  });
}
