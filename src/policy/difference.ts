import { isDeepStrictEqual } from 'node:util';
import type { PolicySet, ServicePolicy } from '../model/policy.ts';
import { COMMON } from './reading.ts';
import { type PolicySection, sectionNames } from './schema/document.ts';

/** One value within a section; one side is absent where there was, or will be, none. */
export interface ValueChange {
  /** `[canary].to[0].weight`: entries of lists by their name, where they have one. Empty: the section itself. */
  readonly path: string;
  readonly before?: unknown;
  readonly after?: unknown;
}

/** A section of a service that another set has otherwise. */
export interface SectionChange {
  /** `*`: of all services that do not have the section themselves. */
  readonly service: string;
  readonly section: PolicySection;
  readonly kind: 'added' | 'removed' | 'changed';
  readonly values: readonly ValueChange[];
}

type Policies = Omit<PolicySet, 'version'>;

/** What is different in `after`, by service in the order of names, `*` first. */
export function differences(before: Policies, after: Policies): readonly SectionChange[] {
  const names = new Set([...Object.keys(before.services), ...Object.keys(after.services)]);
  return [COMMON, ...[...names].sort()].flatMap((service) =>
    ofService(service, policyOf(before, service), policyOf(after, service)),
  );
}

function policyOf({ common, services }: Policies, service: string): ServicePolicy {
  if (service === COMMON) return common;
  return Object.hasOwn(services, service) ? services[service]! : {};
}

function ofService(service: string, before: ServicePolicy, after: ServicePolicy): SectionChange[] {
  const changes: SectionChange[] = [];
  for (const section of sectionNames) {
    const [old, now] = [before[section], after[section]];
    if (isDeepStrictEqual(old, now)) continue;
    const kind = old === undefined ? 'added' : now === undefined ? 'removed' : 'changed';
    changes.push({ service, section, kind, values: [...valueChanges('', old, now)] });
  }
  return changes;
}

function* valueChanges(path: string, before: unknown, after: unknown): Generator<ValueChange> {
  if (isDeepStrictEqual(before, after)) return;
  const [old, now] = [entriesOf(before), entriesOf(after)];
  if (old === undefined || now === undefined) {
    yield {
      path,
      ...(before === undefined ? {} : { before }),
      ...(after === undefined ? {} : { after }),
    };
    return;
  }
  const same = [...old.keys()].filter((key) => now.has(key));
  const order = [...now.keys()].filter((key) => old.has(key));
  // The first that matches counts: another order is another policy.
  if (!isDeepStrictEqual(same, order)) yield { path: `${path} order`.trim(), before: same, after: order };
  for (const key of new Set([...old.keys(), ...now.keys()]))
    yield* valueChanges(joined(path, key), old.get(key), now.get(key));
}

function joined(path: string, key: string): string {
  return path === '' || key.startsWith('[') ? `${path}${key}` : `${path}.${key}`;
}

/** What stands in a map, or in a list whose entries have names of their own; undefined for everything else. */
function entriesOf(value: unknown): ReadonlyMap<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  if (!Array.isArray(value)) return new Map(Object.entries(value));
  if (value.length === 0 || !value.every((one) => typeof one === 'object' && one !== null)) return undefined;
  const named = value.every((one: object) => 'name' in one && typeof one.name === 'string');
  return new Map(value.map((one: { name?: string }, at) => [`[${named ? one.name : at}]`, one]));
}
