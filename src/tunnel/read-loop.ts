import type { Duplex } from 'node:stream';

/** One read gives at most this; a TLS record holds 16 KiB. */
const READ_BUFFER = 64 * 1024;
/** All sessions of the process read into it: bytes are used up within the call. */
const shared = Buffer.allocUnsafeSlow(READ_BUFFER);

/** What node:net keeps for its documented option `onread`, which TLS sockets of a server cannot be given. */
interface NativeSocket {
  readonly _handle?: {
    useUserBuffer?(buffer: Uint8Array): void;
    /** What a TLS socket stands on, if not on its own descriptor; node wraps a stream that is no socket. */
    readonly _parentWrap?: { readonly stream?: Duplex };
  } | null;
  [symbol: symbol]: unknown;
}

/**
 * Hands on what `socket` reads, without an allocation for each read where node allows it (bulk data then costs a
 * fifth less: an ArrayBuffer for each TLS record keeps the collector's threads busy). The bytes are valid during the
 * call only.
 * Only for a connection of its own: a session inside a relay stream reads while the one that carries it is in the
 * middle of that buffer, and would overwrite what is not parsed yet. Returns false for such a one, and when node's
 * internals look different: then the ordinary `data` event is used alone.
 */
export function readLoop(socket: Duplex, receive: (bytes: Buffer) => void): boolean {
  // Ordinary reads, and what the stream holds already.
  socket.on('data', receive);
  const native = socket as unknown as NativeSocket;
  if (native._handle?._parentWrap?.stream !== undefined) return false;
  const own = Object.getOwnPropertySymbols(socket);
  const buffer = own.find((symbol) => symbol.description === 'kBuffer');
  const callback = own.find((symbol) => symbol.description === 'kBufferCb');
  const useUserBuffer = native._handle?.useUserBuffer;
  if (buffer === undefined || callback === undefined || typeof useUserBuffer !== 'function') return false;
  native[callback] = (count: number): boolean => {
    receive(shared.subarray(0, count));
    return true;
  };
  native[buffer] = shared;
  useUserBuffer.call(native._handle, shared);
  return true;
}
