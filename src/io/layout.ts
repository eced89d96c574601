/**
 * Layouts of the kernel structures that this room reads and writes, for the two supported architectures.
 * Sources: include/uapi/linux/eventpoll.h (EPOLL_PACKED is set on x86-64 only), socket(7), ip(7), getrlimit(2).
 */
interface EpollEventLayout {
  /** Size of one `struct epoll_event`. */
  readonly size: number;
  /** Offset of `events`. */
  readonly events: number;
  /** Offset of the low half of `data`: the descriptor. */
  readonly descriptor: number;
  /** Offset of the high half of `data`: the generation. */
  readonly generation: number;
}

const epollEventLayouts: Readonly<Record<string, EpollEventLayout>> = {
  x64: { size: 12, events: 0, descriptor: 4, generation: 8 },
  // Not packed: `data` is aligned to 8. Written from the header; untested until somebody runs it on arm64.
  arm64: { size: 16, events: 0, descriptor: 8, generation: 12 },
};

/** Layout of `struct epoll_event` on an architecture (`process.arch`); throws for one that nobody has checked. */
export function epollEventLayout(architecture: string): EpollEventLayout {
  const layout = epollEventLayouts[architecture];
  if (layout === undefined) {
    throw new RangeError(`mesh-node runs on x64 and arm64, not on ${architecture}`);
  }
  return layout;
}

/** `struct sockaddr_in`: family (host order), port (network order), address, 8 bytes of padding. */
export const SOCKADDR_IN_SIZE = 16;
/** `struct sockaddr_in6`: family, port, flow info, 16 bytes of address, scope id. */
export const SOCKADDR_IN6_SIZE = 28;
/** `sun_path` starts here, and holds 108 bytes. */
export const SOCKADDR_UN_PATH = 2;
export const SOCKADDR_UN_SIZE = 110;

/**
 * `struct msghdr`, `struct iovec` and `struct cmsghdr` of 64-bit Linux (include/linux/socket.h, uio.h): the same on x64
 * and arm64, with pointers and sizes of eight bytes.
 */
export const MSGHDR = { size: 56, iov: 16, iovCount: 24, control: 32, controlSize: 40, flags: 48 } as const;
export const IOVEC = { size: 16, base: 0, length: 8 } as const;
/** Data follows the header; lengths are rounded up to eight. */
export const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const;
