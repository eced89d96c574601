import type { Config } from '../../config/schema.ts';
import { type AllowList, parseProtected } from '../allow-list.ts';
import type { Family } from '../names.ts';
import { destinationMatch, type Exemption, isDestinationExemption, type OnlyCallers } from './exemption.ts';
import type { FallbackEntry } from './fallback.ts';

/** What the configuration and this host give: constant until a reload. */
export interface RuleBase {
  readonly capture: Pick<
    Config['capture'],
    'mode' | 'port' | 'bridges' | 'percent' | 'deadAfter' | 'observeGroup'
  >;
  readonly names: Pick<Config['names'], 'domain' | 'port' | 'ipv4' | 'ipv6'>;
  /** Numeric user id of the daemon: a name would ask NSS, which may hang on a network that we redirect. */
  readonly uid: number;
  /** Ports that the daemon listens on beside `capture.port`: tunnel, metrics. */
  readonly ports: readonly number[];
  /** Entries that hold before the file's: `capture.protect`. */
  readonly protected: AllowList;
}

/** All that the rules depend on. */
export interface RuleInput extends RuleBase {
  readonly exempt: readonly Exemption[];
  /** Undefined: everybody's connections are taken. */
  readonly only: OnlyCallers | undefined;
  /** Where virtual addresses lead without the agent. */
  readonly fallback: readonly FallbackEntry[];
  /** Some service of this host wants to see its callers' addresses. */
  readonly transparent: boolean;
  /** Families in which the security table refuses what a strict service is closed to once more. */
  readonly backstop: readonly Family[];
}

/** What changes while the agent runs, when nothing has been said yet. */
export const NOTHING_SAID: Omit<RuleInput, keyof RuleBase> = {
  exempt: [],
  only: undefined,
  fallback: [],
  transparent: false,
  backstop: [],
};

/** The part of the configuration that the rules need; throws a MeshError `configuration` when `protect` cannot be read. */
export function ruleBase(
  config: Pick<Config, 'capture' | 'names'>,
  uid: number,
  ports: readonly number[],
): RuleBase {
  const { capture, names } = config;
  return { capture, names, uid, ports, protected: parseProtected(capture.protect) };
}

/** One rule for each destination that is never touched: protected ones, then the allow-list; none twice. */
export function exemptDestinations(input: RuleInput, family: Family): readonly string[] {
  const rules = new Set<string>();
  const add = (match: string | undefined): void => {
    if (match !== undefined) rules.add(`${match} -j RETURN`.trimStart());
  };
  for (const entry of input.protected) add(destinationMatch(entry, family));
  for (const exemption of input.exempt) {
    if (isDestinationExemption(exemption)) add(destinationMatch(exemption, family));
  }
  return [...rules];
}
