import { MeshError } from '../model/errors.ts';
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM } from './constants.ts';
import { SOCKADDR_UN_PATH, SOCKADDR_UN_SIZE } from './layout.ts';
import * as libc from './libc.ts';

/** What a service tells systemd (sd_notify(3)). */
type ServiceState = 'ready' | 'reloading' | 'stopping' | 'watchdog';

/**
 * Speaks to the service manager over the datagram socket of `NOTIFY_SOCKET`, by path or abstract (`@…`). Without
 * that variable nothing is sent. A datagram that cannot be sent is reported by `false` and never thrown: the manager
 * being away must not stop the service.
 */
export class ServiceNotifier {
  readonly #address: Uint8Array | undefined;

  /** @param path value of NOTIFY_SOCKET; a MeshError when it is no unix socket address. */
  constructor(path: string | undefined) {
    this.#address = path === undefined || path === '' ? undefined : unixAddress(path);
  }

  /** One datagram; `status` is the line that `systemctl status` shows. */
  tell(state: ServiceState | undefined, status?: string): boolean {
    let message = state === undefined ? '' : messageOf(state);
    if (status !== undefined) message += `STATUS=${status.replaceAll('\n', ' ')}\n`;
    return this.#send(message);
  }

  #send(message: string): boolean {
    if (this.#address === undefined || message === '') return false;
    const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    const bytes = Buffer.from(message);
    const sent = libc.sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, this.#address, this.#address.length);
    libc.close(fd);
    return sent === bytes.length;
  }
}

function messageOf(state: ServiceState): string {
  switch (state) {
    case 'ready':
      return 'READY=1\n';
    case 'reloading':
      // Type=notify-reload wants the moment, on the clock that process.hrtime reads (CLOCK_MONOTONIC).
      return `RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}\n`;
    case 'stopping':
      return 'STOPPING=1\n';
    case 'watchdog':
      return 'WATCHDOG=1\n';
  }
}

function unixAddress(path: string): Uint8Array {
  const name = Buffer.from(path);
  const abstract = path.startsWith('@');
  if (!(abstract || path.startsWith('/')) || name.length >= SOCKADDR_UN_SIZE - SOCKADDR_UN_PATH) {
    throw new MeshError('configuration', 'operator', `NOTIFY_SOCKET is no unix socket address: ${path}`);
  }
  if (abstract) name[0] = 0;
  // A path ends with a zero byte; an abstract name ends where the address ends.
  const address = new Uint8Array(SOCKADDR_UN_PATH + name.length + (abstract ? 0 : 1));
  address[0] = AF_UNIX;
  address.set(name, SOCKADDR_UN_PATH);
  return address;
}

/**
 * How often the watchdog wants a sign of life, in milliseconds: half of WATCHDOG_USEC, as sd_watchdog_enabled(3)
 * advises; undefined when it is off or meant for another process.
 */
export function watchdogInterval(environment: NodeJS.ProcessEnv, pid: number): number | undefined {
  const microseconds = Number(environment['WATCHDOG_USEC']);
  if (!Number.isSafeInteger(microseconds) || microseconds <= 0) return undefined;
  const meant = environment['WATCHDOG_PID'];
  if (meant !== undefined && Number(meant) !== pid) return undefined;
  return microseconds / 2000;
}
