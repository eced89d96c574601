import { fstatSync } from 'node:fs';
import type { Endpoint } from '../model/address.ts';
import { SO_ACCEPTCONN, SO_TYPE, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET } from './constants.ts';
import * as libc from './libc.ts';
import { decodeSocketAddress } from './sockaddr.ts';

/** What a descriptor that somebody else made turns out to be. */
export interface BoundSocket extends Endpoint {
  /** `stream`: it listens. */
  readonly type: 'stream' | 'datagram';
}

/** Where a descriptor listens; undefined when it is no bound IP socket, or a stream socket that does not listen. */
export function boundSocket(fd: number): BoundSocket | undefined {
  const type = integerOption(fd, SO_TYPE);
  const listens = integerOption(fd, SO_ACCEPTCONN) === 1;
  if (!(type === SOCK_DGRAM || (type === SOCK_STREAM && listens))) return undefined;
  const address = new Uint8Array(128);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, address.length, true);
  if (libc.getsockname(fd, address, size) < 0) return undefined;
  const endpoint = decodeSocketAddress(address);
  if (endpoint === undefined || endpoint.port === 0) return undefined;
  return { ...endpoint, type: type === SOCK_DGRAM ? 'datagram' : 'stream' };
}

/** Names one socket of this host, whichever process holds a descriptor of it. */
export function socketInode(fd: number): number {
  return fstatSync(fd).ino;
}

function integerOption(fd: number, name: number): number | undefined {
  const value = new Uint8Array(4);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, 4, true);
  if (libc.getsockopt(fd, SOL_SOCKET, name, value, size) < 0) return undefined;
  return new DataView(value.buffer).getInt32(0, true);
}
