import type { AllowList } from '../../src/capture/allow-list.ts';
import { type Destinations, emptySets, type SetPlan } from '../../src/capture/capture-plan.ts';
import { anywhereKey } from '../../src/capture/hosted-ports.ts';
import type { Wanted } from '../../src/capture/interception.ts';
import { families, type SetRole, setRoles } from '../../src/capture/names.ts';
import { NOTHING_SAID } from '../../src/capture/rules/input.ts';
import { type Config, configSchema } from '../../src/config/schema.ts';
import type { EndpointKey } from '../../src/model/address.ts';
import { PersistentMap } from '../../src/model/persistent-map.ts';

/** Sets with these members, as texts `10.0.0.1:80` and `[fd00::1]:80`; ports are of both families. */
export function setsOf({
  ports = [],
  ...members
}: Partial<Record<Exclude<SetRole, 'ports'>, readonly string[]>> & {
  readonly ports?: readonly number[];
}): SetPlan {
  const empty: Destinations = PersistentMap.empty<EndpointKey, true>();
  const closed = empty.with(ports.map((port) => [anywhereKey(port), true] as const));
  return Object.fromEntries(
    setRoles.map((role) => [
      role,
      Object.fromEntries(
        families.map((family) => {
          if (role === 'ports') return [family, closed];
          const own = (members[role] ?? []).filter((key) => key.startsWith('[') === (family === 'ipv6'));
          return [family, empty.with(own.map((key) => [key as EndpointKey, true] as const))];
        }),
      ),
    ]),
  ) as unknown as SetPlan;
}

/** Redirects these, exempts those, and wants nothing else. */
export function wantedOf(redirect: readonly string[] = [], exempt: AllowList = []): Wanted {
  return { ...NOTHING_SAID, exempt, sets: redirect.length === 0 ? emptySets : setsOf({ redirect }) };
}

/** Sections of the configuration that rules depend on; without the dead man's switch and virtual addresses. */
export function captureConfig(
  capture: object = {},
  names: object = { ipv4: 'off', ipv6: 'off' },
): Pick<Config, 'capture' | 'names'> {
  return configSchema.parse({ capture: { deadAfter: '0ms', ...capture }, names });
}
