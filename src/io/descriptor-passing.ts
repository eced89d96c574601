import * as c from './constants.ts';
import { CMSGHDR, IOVEC, MSGHDR } from './layout.ts';
import * as libc from './libc.ts';

/** Descriptors in one message; the kernel takes up to 253 (SCM_MAX_FD). */
export const MAX_PASSED_DESCRIPTORS = 64;
/** Bytes beside the descriptors in one message. */
export const MAX_PASSED_BYTES = 4096;

const INT = 4;
const CONTROL_SIZE = CMSGHDR.size + MAX_PASSED_DESCRIPTORS * INT;
const IOVEC_AT = 64;
const CONTROL_AT = 128;
const NAME_AT = CONTROL_AT + CONTROL_SIZE;
/** A unix socket address, for senders that have no connection. */
const NAME_SIZE = 112;
const BYTES_AT = NAME_AT + NAME_SIZE;

/**
 * One memory for all messages, outside of V8's heap because its structures point into it: msghdr, iovec, control
 * message, address, bytes.
 */
interface MessageMemory {
  readonly address: libc.Pointer;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

let memory: MessageMemory | undefined;

function messageMemory(): MessageMemory {
  if (memory !== undefined) return memory;
  const size = BYTES_AT + MAX_PASSED_BYTES;
  const block = libc.allocateMemory(size);
  const bytes = libc.bytesOf(block, size);
  memory = { address: libc.addressOf(block), bytes, view: new DataView(bytes.buffer) };
  return memory;
}

/** Writes the msghdr and its iovec; `control` and `name` are sizes in bytes. */
function prepare({ address, bytes, view }: MessageMemory, body: number, control: number, name: number): void {
  bytes.fill(0, 0, IOVEC_AT + IOVEC.size);
  if (name > 0) {
    view.setBigUint64(0, address + BigInt(NAME_AT), true);
    view.setUint32(8, name, true);
  }
  view.setBigUint64(MSGHDR.iov, address + BigInt(IOVEC_AT), true);
  view.setBigUint64(MSGHDR.iovCount, 1n, true);
  view.setBigUint64(IOVEC_AT + IOVEC.base, address + BigInt(BYTES_AT), true);
  view.setBigUint64(IOVEC_AT + IOVEC.length, BigInt(body), true);
  if (control === 0) return;
  view.setBigUint64(MSGHDR.control, address + BigInt(CONTROL_AT), true);
  view.setBigUint64(MSGHDR.controlSize, BigInt(control), true);
}

/**
 * Sends bytes and descriptors as one message over a unix socket; the other process gets copies, and ours stay open.
 * `to` is the address of a socket that is not connected, in the kernel's form. Answers the errno, 0 when it was sent:
 * EAGAIN when the other side reads too slowly. A RangeError when it is more than one message may hold; at least one
 * byte has to go along on a stream.
 */
export function sendDescriptors(
  fd: number,
  body: Uint8Array,
  descriptors: readonly number[],
  to?: Uint8Array,
): number {
  if (
    body.length > MAX_PASSED_BYTES ||
    descriptors.length > MAX_PASSED_DESCRIPTORS ||
    (to?.length ?? 0) > NAME_SIZE
  ) {
    throw new RangeError(`message of ${body.length} bytes and ${descriptors.length} descriptors`);
  }
  const block = messageMemory();
  const { bytes, view } = block;
  bytes.set(body, BYTES_AT);
  if (to !== undefined) bytes.set(to, NAME_AT);
  const length = CMSGHDR.size + descriptors.length * INT;
  const control = descriptors.length === 0 ? 0 : roundedUp(length);
  prepare(block, body.length, control, to?.length ?? 0);
  if (control > 0) {
    bytes.fill(0, CONTROL_AT, CONTROL_AT + control);
    view.setBigUint64(CONTROL_AT + CMSGHDR.length, BigInt(length), true);
    view.setInt32(CONTROL_AT + CMSGHDR.level, c.SOL_SOCKET, true);
    view.setInt32(CONTROL_AT + CMSGHDR.type, c.SCM_RIGHTS, true);
    descriptors.forEach((descriptor, i) => {
      view.setInt32(CONTROL_AT + CMSGHDR.size + i * INT, descriptor, true);
    });
  }
  return libc.sendmsg(fd, block.address, c.MSG_NOSIGNAL | c.MSG_DONTWAIT) < 0 ? libc.errno() : 0;
}

/** One message as it arrived; its descriptors are close-on-exec and belong to whoever asked. */
export interface PassedMessage {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly number[];
}

/**
 * Takes one message off a unix socket. `empty` when none has arrived, `closed` when the other side is gone, `broken`
 * when the kernel refuses or descriptors were lost (too many for one message, or for this process); then those that did
 * arrive have been closed.
 */
export function receiveDescriptors(fd: number): PassedMessage | 'empty' | 'closed' | 'broken' {
  const block = messageMemory();
  const { address, bytes, view } = block;
  prepare(block, MAX_PASSED_BYTES, CONTROL_SIZE, 0);
  const count = libc.recvmsg(fd, address, c.MSG_DONTWAIT | c.MSG_CMSG_CLOEXEC);
  if (count < 0) {
    const errno = libc.errno();
    if (errno === c.EAGAIN || errno === c.EINTR) return 'empty';
    return errno === c.ECONNRESET ? 'closed' : 'broken';
  }
  const descriptors = arrivedDescriptors(block);
  if ((view.getInt32(MSGHDR.flags, true) & c.MSG_CTRUNC) !== 0) {
    for (const descriptor of descriptors) libc.close(descriptor);
    return 'broken';
  }
  if (count === 0 && descriptors.length === 0) return 'closed';
  return { bytes: bytes.slice(BYTES_AT, BYTES_AT + count), descriptors };
}

function arrivedDescriptors({ view }: MessageMemory): number[] {
  const end = CONTROL_AT + Math.min(CONTROL_SIZE, Number(view.getBigUint64(MSGHDR.controlSize, true)));
  const result: number[] = [];
  for (let at = CONTROL_AT; at + CMSGHDR.size <= end; ) {
    const length = Number(view.getBigUint64(at + CMSGHDR.length, true));
    if (length < CMSGHDR.size || at + length > end) break;
    const rights =
      view.getInt32(at + CMSGHDR.level, true) === c.SOL_SOCKET &&
      view.getInt32(at + CMSGHDR.type, true) === c.SCM_RIGHTS;
    for (let i = at + CMSGHDR.size; rights && i + INT <= at + length; i += INT) {
      result.push(view.getInt32(i, true));
    }
    at += roundedUp(length);
  }
  return result;
}

function roundedUp(length: number): number {
  return (length + 7) & ~7;
}
