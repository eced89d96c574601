/** What a service and an instance are when their registry does not say; the same for every source. */
export const serviceDefaults = Object.freeze({
  protocol: 'auto',
  mode: 'permissive',
  interchangeable: false,
} as const);

/** Relative share of an instance whose registry names none. */
export const DEFAULT_WEIGHT = 100;
