import type { Balance, BalanceAlgorithm, Outlier, ServicePolicy } from '../model/policy.ts';
import type { BalancePolicy } from '../model/service.ts';

/** Settings of outlier ejection without a policy: `balance` of the configuration. Times in milliseconds. */
export interface EjectionSettings {
  readonly ejectAfter: number;
  readonly ejectBase: number;
  readonly ejectMax: number;
  readonly maxEjectedPercent: number;
}

/** When an instance is set aside, for how long, and how many of them at once. Times in milliseconds. */
export interface EjectionRule {
  /** Failures in a row. */
  readonly after: number;
  readonly base: number;
  readonly longest: number;
  /** What the base is multiplied by, after so many ejections in a row. */
  readonly growth: (before: number) => number;
  /** Share of a service, in percent, that may be out. */
  readonly maxOut: number;
  /** Instances that may be out whatever share they are, while others are left. */
  readonly alwaysOut: 0 | 1;
  /** When a smaller share is usable, in percent, all are used. */
  readonly panicBelow: number;
  /** What is compared among instances now and then; undefined: nothing. Answers of a failure count as failures then. */
  readonly outlier: Outlier | undefined;
}

/** Everything that is said about the balancing of one service. */
export interface BalanceRule {
  readonly algorithm: BalanceAlgorithm;
  readonly ejection: EjectionRule;
  readonly boundedLoad: number;
  readonly slowStart: number;
  readonly overflow: { readonly below: number; readonly minimumNear: number };
  /** Delays are to be measured. */
  readonly timed: boolean;
  /** Milliseconds between comparisons; Infinity: never. */
  readonly interval: number;
  readonly probed: boolean;
}

/** Used for what a policy without the section does not say: the nearest ring that has anybody takes all. */
const PLAIN: Balance = { boundedLoad: 125, slowStart: 0, overflowBelow: 0, minimumNear: 0 };

const doubling = (before: number): number => 2 ** before;
const linear = (before: number): number => before + 1;

/** Puts together what configuration, registry and operators say. */
export function balanceRule(
  settings: EjectionSettings,
  fallback: BalancePolicy,
  { outlier, balance = PLAIN, probe }: ServicePolicy,
): BalanceRule {
  const algorithm = balance.algorithm ?? fallback;
  const compares = outlier?.successRate !== undefined || outlier?.latency !== undefined;
  return {
    algorithm,
    ejection: outlier === undefined ? plainEjection(settings) : outlierEjection(outlier),
    boundedLoad: balance.boundedLoad,
    slowStart: balance.slowStart,
    overflow: { below: balance.overflowBelow, minimumNear: balance.minimumNear },
    timed: algorithm === 'peak-ewma' || outlier?.latency !== undefined,
    interval: compares ? outlier.interval : Number.POSITIVE_INFINITY,
    probed: probe !== undefined,
  };
}

function plainEjection(settings: EjectionSettings): EjectionRule {
  return {
    after: settings.ejectAfter,
    base: settings.ejectBase,
    longest: settings.ejectMax,
    growth: doubling,
    maxOut: settings.maxEjectedPercent,
    alwaysOut: 0,
    panicBelow: 0,
    outlier: undefined,
  };
}

function outlierEjection(outlier: Outlier): EjectionRule {
  return {
    after: outlier.consecutiveErrors,
    base: outlier.baseEjection,
    longest: outlier.maxEjection,
    growth: linear,
    maxOut: outlier.maxEjectedPercent,
    alwaysOut: outlier.maxEjectedPercent > 0 ? 1 : 0,
    panicBelow: outlier.panicThreshold,
    outlier,
  };
}
