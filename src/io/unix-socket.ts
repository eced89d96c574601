import { chmodSync, unlinkSync } from 'node:fs';
import { MeshError } from '../model/errors.ts';
import * as c from './constants.ts';
import { describeErrno } from './failure.ts';
import { SOCKADDR_UN_PATH, SOCKADDR_UN_SIZE } from './layout.ts';
import * as libc from './libc.ts';
import { INTEREST_ACCEPT, type Poller, type PollTarget } from './poller.ts';

/** Connections that wait to be accepted. */
const BACKLOG = 64;
/** `struct ucred`: pid, uid, gid. */
const UCRED_SIZE = 12;

/**
 * The address of a unix socket in the kernel's form: a path, or an abstract name (`@…`); undefined when it is neither,
 * or too long.
 */
export function unixAddress(path: string): Uint8Array | undefined {
  const name = Buffer.from(path);
  const abstract = path.startsWith('@');
  if (!(abstract || path.startsWith('/')) || name.length >= SOCKADDR_UN_SIZE - SOCKADDR_UN_PATH)
    return undefined;
  if (abstract) name[0] = 0;
  // A path ends with a zero byte; an abstract name ends where the address ends.
  const address = new Uint8Array(SOCKADDR_UN_PATH + name.length + (abstract ? 0 : 1));
  address[0] = c.AF_UNIX;
  address.set(name, SOCKADDR_UN_PATH);
  return address;
}

/** A process as the kernel saw it when it connected. */
interface PeerProcess {
  readonly pid: number;
  readonly uid: number;
}

/** Who is at the other end of a connected unix socket; undefined when the kernel does not say. */
function peerProcess(fd: number): PeerProcess | undefined {
  const credentials = new Uint8Array(UCRED_SIZE);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, UCRED_SIZE, true);
  if (libc.getsockopt(fd, c.SOL_SOCKET, c.SO_PEERCRED, credentials, size) < 0) return undefined;
  const view = new DataView(credentials.buffer);
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true) };
}

/**
 * Connects to a unix stream socket; non-blocking and close-on-exec. Undefined when nobody listens there now, nobody
 * has room, or the owner is another user than `user`.
 */
export function connectUnix(path: string, user: number): number | undefined {
  const address = unixAddress(path);
  if (address === undefined) return undefined;
  const fd = libc.socket(c.AF_UNIX, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  // On a unix socket it succeeds or fails at once.
  if (libc.connect(fd, address, address.length) === 0 && peerProcess(fd)?.uid === user) return fd;
  libc.close(fd);
  return undefined;
}

/** A unix stream socket that only its owner may connect to. */
export class UnixListener implements PollTarget {
  readonly #poller: Poller;
  readonly #fd: number;
  readonly #user: number;
  readonly #onConnection: (fd: number, pid: number) => void;

  /**
   * Takes the path over, whatever stood there. `onConnection` is given connections of processes of
   * this process's own user; others are closed at once. Throws a MeshError.
   */
  constructor(poller: Poller, path: string, onConnection: (fd: number, pid: number) => void) {
    this.#poller = poller;
    this.#user = process.geteuid!();
    this.#onConnection = onConnection;
    this.#fd = listenAt(path);
    poller.register(this.#fd, INTEREST_ACCEPT, this);
  }

  /** @internal for the poller */
  ready(): void {
    for (let i = 0; i < BACKLOG; i++) {
      const fd = libc.accept4(this.#fd, null, null, c.SOCK_NONBLOCK | c.SOCK_CLOEXEC);
      if (fd < 0) return;
      const peer = peerProcess(fd);
      if (peer?.uid === this.#user) this.#onConnection(fd, peer.pid);
      else libc.close(fd);
    }
  }

  /** @internal for the poller: the owner threw, the listener goes on. */
  failed(): void {}

  close(): void {
    this.#poller.unregister(this.#fd);
    libc.close(this.#fd);
  }
}

function listenAt(path: string): number {
  const address = unixAddress(path);
  const failed = (call: string, errno: number): MeshError =>
    new MeshError('system', 'kernel', `cannot listen on ${path}: ${describeErrno(call, errno)}`);
  if (address === undefined)
    throw new MeshError('configuration', 'operator', `${path} is no path of a unix socket`);
  try {
    unlinkSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new MeshError('system', 'kernel', `cannot listen on ${path}: ${code}`);
  }
  const fd = libc.socket(c.AF_UNIX, c.SOCK_STREAM | c.SOCK_NONBLOCK | c.SOCK_CLOEXEC, 0);
  if (fd < 0) throw failed('socket', libc.errno());
  // Nobody else may connect even for the moment before chmod.
  const before = process.umask(0o177);
  const bound = libc.bind(fd, address, address.length);
  const errno = libc.errno();
  process.umask(before);
  if (bound < 0) {
    libc.close(fd);
    throw failed('bind', errno);
  }
  chmodSync(path, 0o600);
  if (libc.listen(fd, BACKLOG) < 0) {
    const error = failed('listen', libc.errno());
    libc.close(fd);
    throw error;
  }
  return fd;
}
