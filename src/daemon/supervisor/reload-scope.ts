import { isDeepStrictEqual } from 'node:util';
import type { Config } from '../../config/schema.ts';

/** Parts of the configuration that act at once when they change; everything else waits for a restart. */
const LIVE: readonly string[] = [
  'capture.mode',
  'capture.percent',
  'capture.only',
  'capture.deadAfter',
  'capture.disabledFile',
  'capture.allowList',
  'capture.observeGroup',
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
  'names.ttl',
  'names.resolveInterval',
  'names.resolveTimeout',
  'caller',
  'guard',
  'limits.connections',
  'limits.callerPercent',
  'limits.keepaliveIdle',
  'daemon.drainTimeout',
  'daemon.upgradeDrainTimeout',
  'daemon.orphanTimeout',
  'daemon.suspendTimeout',
  'telemetry.logLevel',
  'telemetry.accessLogRequests',
  'telemetry.flushInterval',
];

/** What a new configuration changes, as dotted keys, and what becomes of it. */
export interface ReloadScope {
  readonly changed: readonly string[];
  /** Those of `changed` that act only after a restart. */
  readonly needRestart: readonly string[];
  /** The running configuration with everything that may change at once, and nothing else. */
  readonly next: Config;
}

/** The settings that act only at a start, as dotted keys. */
export function startOnly(config: Config): Readonly<Record<string, unknown>> {
  const kept: Record<string, unknown> = { 'capture.off': config.capture.mode === 'off' };
  for (const section of Object.keys(config) as (keyof Config)[]) {
    const settings = config[section];
    if (LIVE.includes(section)) continue;
    if (Array.isArray(settings)) kept[section] = settings;
    else
      for (const [key, value] of Object.entries(settings))
        if (!LIVE.includes(`${section}.${key}`)) kept[`${section}.${key}`] = value;
  }
  return kept;
}

/** Compares two configurations. Mode `off` has no capture listener, so going to or from it needs a restart. */
export function reloadScope(before: Config, after: Config): ReloadScope {
  const changed: string[] = [];
  const needRestart: string[] = [];
  const next: Record<string, unknown> = {};
  const take = (key: string, old: unknown, now: unknown): unknown => {
    if (isDeepStrictEqual(old, now)) return old;
    changed.push(key);
    const listener = key === 'capture.mode' && (old === 'off' || now === 'off');
    if (LIVE.includes(key) && !listener) return now;
    needRestart.push(key);
    return old;
  };
  for (const section of Object.keys(after) as (keyof Config)[]) {
    const [old, now] = [before[section], after[section]];
    if (Array.isArray(now) || LIVE.includes(section)) next[section] = take(section, old, now);
    else {
      const keys = Object.keys({ ...old, ...now }) as (keyof typeof now)[];
      next[section] = Object.fromEntries(
        keys.map((key) => [key, take(`${section}.${key}`, old[key], now[key])]),
      );
    }
  }
  return { changed, needRestart, next: next as Config };
}
