import { isDeepStrictEqual } from 'node:util';
import type { Config } from '../config/schema.ts';

/** Parts of the configuration that act at once when they change; everything else waits for a restart. */
const LIVE: readonly string[] = [
  'capture.mode',
  'capture.allowList',
  'capture.ipv6',
  'capture.backend',
  'capture.reassertInterval',
  'capture.protect',
  'node.callAs',
  'identity.authority',
  'identity.certificate',
  'identity.key',
  'registries',
  'cache',
  'balance',
  'zones',
  'zoneAgent',
  'limits.connections',
  'limits.keepaliveIdle',
  'daemon.drainTimeout',
  'telemetry.logLevel',
  'telemetry.flushInterval',
];

/** What a new configuration changes, as dotted keys. */
export interface ReloadScope {
  readonly changed: readonly string[];
  /** Those of `changed` that act only after a restart. */
  readonly needRestart: readonly string[];
}

/** Compares two configurations. Mode `off` has no capture listener, so going to or from it needs a restart. */
export function reloadScope(before: Config, after: Config): ReloadScope {
  const changed: string[] = [];
  for (const section of Object.keys(after) as (keyof Config)[]) {
    const [old, now] = [before[section], after[section]];
    if (isDeepStrictEqual(old, now)) continue;
    if (Array.isArray(now) || LIVE.includes(section)) changed.push(section);
    else {
      for (const key of Object.keys({ ...old, ...now })) {
        const name = key as keyof typeof now;
        if (!isDeepStrictEqual(old[name], now[name])) changed.push(`${section}.${key}`);
      }
    }
  }
  const offChanges = (before.capture.mode === 'off') !== (after.capture.mode === 'off');
  const live = (key: string) => LIVE.includes(key) && !(key === 'capture.mode' && offChanges);
  return { changed, needRestart: changed.filter((key) => !live(key)) };
}
