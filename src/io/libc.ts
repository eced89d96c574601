import koffi from 'koffi';

/*
 * The foreign calls of the project, all of them. A call costs about 0.25 µs; a Uint8Array argument passes its memory
 * without a copy. Nothing here throws for a failed call: like in C, the result is negative and `errno()` says why,
 * until the next foreign call.
 */

const libc = koffi.load('libc.so.6');
/** The node binary itself: libuv is exported from it and part of Node's public ABI. */
const node = koffi.load(null);

type Bytes = Uint8Array;

export const socket = libc.func('int socket(int, int, int)') as unknown as (
  family: number,
  type: number,
  protocol: number,
) => number;
export const bind = libc.func('int bind(int, void*, uint)') as unknown as (
  fd: number,
  address: Bytes,
  size: number,
) => number;
export const listen = libc.func('int listen(int, int)') as unknown as (fd: number, backlog: number) => number;
export const accept4 = libc.func('int accept4(int, void*, void*, int)') as unknown as (
  fd: number,
  address: Bytes | null,
  size: Bytes | null,
  flags: number,
) => number;
export const connect = libc.func('int connect(int, void*, uint)') as unknown as (
  fd: number,
  address: Bytes,
  size: number,
) => number;
export const recv = libc.func('long recv(int, void*, size_t, int)') as unknown as (
  fd: number,
  into: Bytes,
  size: number,
  flags: number,
) => number;
export const send = libc.func('long send(int, void*, size_t, int)') as unknown as (
  fd: number,
  from: Bytes,
  size: number,
  flags: number,
) => number;
/** As {@link send}, of memory that does not move, by its address: no view of it has to be made. */
export const sendAt = libc.func('long send(int, uintptr_t, size_t, int)') as unknown as (
  fd: number,
  address: number,
  size: number,
  flags: number,
) => number;
export const sendto = libc.func('long sendto(int, void*, size_t, int, void*, uint)') as unknown as (
  fd: number,
  from: Bytes,
  size: number,
  flags: number,
  address: Bytes,
  addressSize: number,
) => number;
export const sendmsg = libc.func('long sendmsg(int, void*, int)') as unknown as (
  fd: number,
  message: Pointer,
  flags: number,
) => number;
export const recvmsg = libc.func('long recvmsg(int, void*, int)') as unknown as (
  fd: number,
  message: Pointer,
  flags: number,
) => number;
export const shutdown = libc.func('int shutdown(int, int)') as unknown as (fd: number, how: number) => number;
export const close = libc.func('int close(int)') as unknown as (fd: number) => number;
export const getsockopt = libc.func('int getsockopt(int, int, int, void*, void*)') as unknown as (
  fd: number,
  level: number,
  name: number,
  value: Bytes,
  size: Bytes,
) => number;
export const setsockopt = libc.func('int setsockopt(int, int, int, void*, uint)') as unknown as (
  fd: number,
  level: number,
  name: number,
  value: Bytes,
  size: number,
) => number;
export const getsockname = libc.func('int getsockname(int, void*, void*)') as unknown as (
  fd: number,
  address: Bytes,
  size: Bytes,
) => number;
export const getpeername = libc.func('int getpeername(int, void*, void*)') as unknown as (
  fd: number,
  address: Bytes,
  size: Bytes,
) => number;
export const fcntl = libc.func('int fcntl(int, int, int)') as unknown as (
  fd: number,
  command: number,
  argument: number,
) => number;
export const socketpair = libc.func('int socketpair(int, int, int, void*)') as unknown as (
  family: number,
  type: number,
  protocol: number,
  pair: Bytes,
) => number;
export const epollCreate = libc.func('int epoll_create1(int)') as unknown as (flags: number) => number;
export const epollCtl = libc.func('int epoll_ctl(int, int, int, void*)') as unknown as (
  epoll: number,
  operation: number,
  fd: number,
  event: Bytes,
) => number;
export const epollWait = libc.func('int epoll_wait(int, void*, int, int)') as unknown as (
  epoll: number,
  events: Bytes,
  count: number,
  timeoutMs: number,
) => number;
export const prctl = libc.func('int prctl(int, ulong, ulong, ulong, ulong)') as unknown as (
  option: number,
  a: number,
  b: number,
  c: number,
  d: number,
) => number;
export const capget = libc.func('int capget(void*, void*)') as unknown as (
  header: Bytes,
  data: Bytes,
) => number;
export const capset = libc.func('int capset(void*, void*)') as unknown as (
  header: Bytes,
  data: Bytes,
) => number;
export const prlimit = libc.func('int prlimit(int, int, void*, void*)') as unknown as (
  pid: number,
  resource: number,
  next: Bytes | null,
  previous: Bytes | null,
) => number;
/** `times`: null for now. */
export const futimens = libc.func('int futimens(int, void*)') as unknown as (
  fd: number,
  times: Bytes | null,
) => number;
export const flock = libc.func('int flock(int, int)') as unknown as (fd: number, operation: number) => number;
export const adjtimex = libc.func('int adjtimex(void*)') as unknown as (timex: Bytes) => number;
export const waitpid = libc.func('int waitpid(int, void*, int)') as unknown as (
  pid: number,
  status: Bytes,
  options: number,
) => number;
export const execve = libc.func('int execve(const char*, const char**, const char**)') as unknown as (
  path: string,
  argv: readonly (string | null)[],
  environment: readonly (string | null)[],
) => number;

/** Answers the errno itself. */
export const posixFallocate = libc.func('int posix_fallocate(int, int64_t, int64_t)') as unknown as (
  fd: number,
  offset: number,
  size: number,
) => number;
export const mmap = libc.func('void* mmap(void*, size_t, int, int, int, int64_t)') as unknown as (
  near: null,
  size: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
) => unknown;

/** The errno of the last foreign call. Ask at once: any call into the runtime may change it. */
export const errno: () => number = koffi.errno;

/** A pointer to memory outside of JavaScript's heap. */
export type Pointer = bigint;

const PollCallback = koffi.proto('void MeshPollCallback(void* handle, int status, int events)');
const CloseCallback = koffi.proto('void MeshCloseCallback(void* handle)');
const pollCallbackPointer = koffi.pointer(PollCallback);
const closeCallbackPointer = koffi.pointer(CloseCallback);

export const uvDefaultLoop = node.func('void* uv_default_loop()') as unknown as () => unknown;
export const uvHandleSize = node.func('size_t uv_handle_size(int)') as unknown as (type: number) => number;
export const uvPollInit = node.func('int uv_poll_init(void*, void*, int)') as unknown as (
  loop: unknown,
  handle: unknown,
  fd: number,
) => number;
export const uvPollStart = node.func('int uv_poll_start(void*, int, MeshPollCallback*)') as unknown as (
  handle: unknown,
  events: number,
  callback: Pointer,
) => number;
export const uvPollStop = node.func('int uv_poll_stop(void*)') as unknown as (handle: unknown) => number;
export const uvClose = node.func('void uv_close(void*, MeshCloseCallback*)') as unknown as (
  handle: unknown,
  callback: Pointer,
) => void;

/** Memory that is neither moved nor collected until {@link freeMemory}. */
export function allocateMemory(size: number): unknown {
  return koffi.alloc('uint8_t', size);
}
/** Its address, for structures that hold pointers, also that of a buffer for as long as it is referred to; and its bytes. */
export function addressOf(memory: unknown): Pointer {
  return koffi.address(memory);
}
export function bytesOf(memory: unknown, size: number): Uint8Array {
  return new Uint8Array(koffi.view(memory, size));
}
/** The same as a buffer; of mapped memory, too. */
export function viewOf(memory: unknown, size: number): ArrayBuffer {
  return koffi.view(memory, size);
}
export function freeMemory(memory: unknown): void {
  koffi.free(memory);
}

/**
 * Gives libuv something to call. **Nothing may be thrown out of `callback`**: the exception would surface in the next
 * unrelated foreign call, and every registered callback would be dead from then on.
 */
export function registerPollCallback(callback: () => void): Pointer {
  return koffi.register(callback, pollCallbackPointer);
}
export function registerCloseCallback(callback: () => void): Pointer {
  return koffi.register(callback, closeCallbackPointer);
}
export function unregisterCallback(callback: Pointer): void {
  koffi.unregister(callback);
}
