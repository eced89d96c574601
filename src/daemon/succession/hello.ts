import { createHash } from 'node:crypto';
import type { Config } from '../../config/schema.ts';
import type { NodeName } from '../../model/service.ts';
import { startOnly } from '../supervisor/reload-scope.ts';

/**
 * How a worker introduces itself to a supervisor that did not start it. Its form never changes, because the two may be
 * of different versions; new fields may be added.
 */
export interface WorkerHello {
  /** {@link ProgramIdentity.build} of the worker. */
  readonly build: string;
  /** {@link startFingerprint} of the settings that it was started with. */
  readonly fingerprint: string;
  readonly index: number;
  /** 64 bits, in decimal. */
  readonly epoch: string;
  /** Inodes of the listening sockets that it shares. */
  readonly listeners: readonly number[];
  /** It takes nothing new any more, whoever asks. */
  readonly draining: boolean;
  /** When it was started, in ms since the epoch of time. */
  readonly startedAt: number;
}

/** Of the settings of a worker: those that a start decides about. */
interface StartSettings {
  readonly config: Config;
  readonly node: NodeName;
  readonly relay: boolean;
}

/** Names the settings that a worker cannot change any more: equal ones have equal names. */
export function startFingerprint({ config, node, relay }: StartSettings): string {
  const text = JSON.stringify([startOnly(config), node, relay]);
  return createHash('sha256').update(text).digest('base64url');
}

/** Takes it for what it claims to be; undefined when it is none. */
export function parseHello(message: unknown): WorkerHello | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  const { t, hello } = message as { readonly t?: unknown; readonly hello?: unknown };
  if (t !== 'hello' || typeof hello !== 'object' || hello === null) return undefined;
  const { build, fingerprint, index, epoch, listeners, draining, startedAt } = hello as Partial<WorkerHello>;
  const texts = [build, fingerprint].every((text) => typeof text === 'string' && text.length <= 100);
  const numbers = [index, startedAt].every((number) => Number.isSafeInteger(number) && number! >= 0);
  if (!texts || !numbers || typeof draining !== 'boolean') return undefined;
  if (typeof epoch !== 'string' || !/^\d{1,20}$/.test(epoch) || BigInt(epoch) >= 1n << 64n) return undefined;
  if (!Array.isArray(listeners) || listeners.length > 256 || !listeners.every(Number.isSafeInteger))
    return undefined;
  return hello as WorkerHello;
}
