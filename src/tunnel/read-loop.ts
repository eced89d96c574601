import type { Duplex } from 'node:stream';

/** One read gives at most this; a TLS record holds 16 KiB. */
const READ_BUFFER = 64 * 1024;
/** All sessions of the process read into it: bytes are used up within the call. */
const shared = Buffer.allocUnsafeSlow(READ_BUFFER);
/**
 * Sessions inside a relay stream read while the session that carries them is in the middle of its own bytes: they have
 * a buffer to themselves, or they would overwrite what the outer one has not parsed yet.
 */
const sharedInside = Buffer.allocUnsafeSlow(READ_BUFFER);

/** What node:net keeps for its documented option `onread`, which TLS sockets of a server cannot be given. */
interface NativeSocket {
  readonly _handle?: {
    useUserBuffer?(buffer: Uint8Array): void;
    /** What a TLS socket stands on; node wraps a stream that is no socket, and names it here. */
    readonly _parentWrap?: { readonly stream?: Duplex };
  } | null;
  [symbol: symbol]: unknown;
}

/**
 * Hands on what `socket` reads, without an allocation for each read where node allows it (bulk data then costs a
 * fifth less: an ArrayBuffer for each TLS record keeps the collector's threads busy). The bytes are valid during the call only.
 * Returns false when node's internals look different and the ordinary `data` event is used alone.
 */
export function readLoop(socket: Duplex, receive: (bytes: Buffer) => void): boolean {
  // Ordinary reads, and what the stream holds already.
  socket.on('data', receive);
  const native = socket as unknown as NativeSocket;
  const own = Object.getOwnPropertySymbols(socket);
  const buffer = own.find((symbol) => symbol.description === 'kBuffer');
  const callback = own.find((symbol) => symbol.description === 'kBufferCb');
  const useUserBuffer = native._handle?.useUserBuffer;
  if (buffer === undefined || callback === undefined || typeof useUserBuffer !== 'function') return false;
  const into = native._handle?._parentWrap?.stream === undefined ? shared : sharedInside;
  native[callback] = (count: number): boolean => {
    receive(into.subarray(0, count));
    return true;
  };
  native[buffer] = into;
  useUserBuffer.call(native._handle, into);
  return true;
}
