import { MeshError } from '../model/errors.ts';
import { AF_UNIX, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_DGRAM } from './constants.ts';
import { sendDescriptors } from './descriptor-passing.ts';
import * as libc from './libc.ts';
import { unixAddress } from './unix-socket.ts';

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
    if (path === undefined || path === '') return;
    this.#address = unixAddress(path);
    if (this.#address === undefined)
      throw new MeshError('configuration', 'operator', `NOTIFY_SOCKET is no unix socket address: ${path}`);
  }

  /** True when there is a service manager. */
  get managed(): boolean {
    return this.#address !== undefined;
  }

  /** One datagram; `status` is the line that `systemctl status` shows. */
  tell(state: ServiceState | undefined, status?: string): boolean {
    let message = state === undefined ? '' : messageOf(state);
    if (status !== undefined) message += `STATUS=${status.replaceAll('\n', ' ')}\n`;
    return this.#send(message);
  }

  /**
   * Leaves a copy of a descriptor with the manager, which hands it to the next process of this service
   * (`FileDescriptorStoreMax=`). It is kept whatever happens to it (FDPOLL=0): a datagram socket that once heard an
   * ICMP error would be dropped otherwise.
   */
  store(name: string, fd: number): boolean {
    return this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0\n`, [fd]);
  }

  /** Changes how long the manager waits for a sign of life (`WatchdogSec=`), which this is, too. */
  patience(milliseconds: number): boolean {
    return this.#send(`WATCHDOG_USEC=${Math.round(milliseconds * 1000)}\nWATCHDOG=1\n`);
  }

  /** Takes every descriptor of this name out of the manager's keeping. */
  forget(name: string): boolean {
    return this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}\n`);
  }

  #send(message: string, descriptors: readonly number[] = []): boolean {
    if (this.#address === undefined || message === '') return false;
    const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    const bytes = Buffer.from(message);
    // What has no descriptors waits for a busy manager: a lost READY would fail the start.
    const sent =
      descriptors.length === 0
        ? libc.sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, this.#address, this.#address.length) ===
          bytes.length
        : sendDescriptors(fd, bytes, descriptors, this.#address) === 0;
    libc.close(fd);
    return sent;
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
