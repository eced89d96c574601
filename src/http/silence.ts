/**
 * Without a policy: for how long a request may go without a byte either way, in ms. Kuma's default; Envoy's 5 min would end
 * what waits for news for longer on purpose (blocking queries of Consul: 10 min).
 */
export const STREAM_SILENCE_MS = 30 * 60_000;
/** Without a policy: for how long a caller's connection is kept without a request, in ms; as in Envoy and Kuma. */
export const IDLE_MS = 60 * 60_000;
/** How often silence is looked for, in ms: it is noticed up to twice that late. */
export const LOOK_MS = 1000;
