import { readFileSync } from 'node:fs';
import { MeshError } from '../model/errors.ts';
import { describeErrno } from './failure.ts';
import * as libc from './libc.ts';

/** The capabilities that the project knows, with their numbers (include/uapi/linux/capability.h). */
export const capabilityNumbers = {
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
} as const;
export type Capability = keyof typeof capabilityNumbers;

const LINUX_CAPABILITY_VERSION_3 = 0x20080522;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_RAISE = 2;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;

/** Capabilities in force in this process (its main thread), as a bit set; 0n: none. */
export function effectiveCapabilities(): bigint {
  const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return BigInt(`0x${line?.[1] ?? '0'}`);
}

/** True when this process has the capability in force. */
export function hasCapability(capability: Capability): boolean {
  return (effectiveCapabilities() & (1n << BigInt(capabilityNumbers[capability]))) !== 0n;
}

/**
 * Empties the ambient set: from then on a program that this process starts gets no capability, workers least of all.
 * The process itself keeps its own. (A process of user 0 gives its children everything all the same: run as a user.)
 */
export function clearAmbientCapabilities(): void {
  if (libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
    throw new MeshError('system', 'kernel', describeErrno('prctl', libc.errno()));
  }
}

/**
 * Runs `start` (one `spawn`) with capabilities that its child inherits, and takes them away again. It works because
 * libuv forks from the calling thread, within `spawn`: nothing asynchronous may hide in `start`.
 */
export function withAmbientCapabilities<T>(capabilities: readonly Capability[], start: () => T): T {
  makeInheritable(capabilities);
  try {
    for (const capability of capabilities) {
      if (libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capabilityNumbers[capability], 0, 0) < 0) {
        throw new MeshError('system', 'kernel', `${capability}: ${describeErrno('prctl', libc.errno())}`);
      }
    }
    return start();
  } finally {
    clearAmbientCapabilities();
  }
}

/** Only what is permitted and inheritable can become ambient; adds to the inheritable set of this thread. */
function makeInheritable(capabilities: readonly Capability[]): void {
  const header = new Uint32Array([LINUX_CAPABILITY_VERSION_3, 0]);
  const data = new Uint32Array(6); // twice { effective, permitted, inheritable }
  const headerBytes = new Uint8Array(header.buffer);
  const dataBytes = new Uint8Array(data.buffer);
  if (libc.capget(headerBytes, dataBytes) < 0) throw capabilityError('capget');
  for (const capability of capabilities) data[2]! |= 1 << capabilityNumbers[capability];
  if (libc.capset(headerBytes, dataBytes) < 0) throw capabilityError('capset');
}

function capabilityError(call: string): MeshError {
  return new MeshError('system', 'kernel', describeErrno(call, libc.errno()));
}
