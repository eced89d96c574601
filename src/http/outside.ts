import type { Channel } from '../io/channel.ts';
import type { Endpoint } from '../model/address.ts';
import { noPolicy } from '../model/policy.ts';
import type { PickToken } from '../proxy/outbound-dependencies.ts';
import type { ExchangeDependencies } from './exchange-owner.ts';
import type { UpstreamPool } from './upstream-pool.ts';

const untold: PickToken = { connected() {}, failed() {}, answered() {}, finished() {} };

/**
 * The stages as requests need them that go to a place outside of the mesh: its addresses one after the other, directly.
 * Nothing is learned of them, and no policy speaks of them.
 */
export function outsideDependencies(
  inside: ExchangeDependencies,
  pool: UpstreamPool,
  direct: (endpoint: Endpoint) => Channel,
): ExchangeDependencies {
  return {
    ...inside,
    pool,
    beyond: true,
    pick: (service, exclude) => service.instances.find((instance) => !exclude.has(instance)),
    started: () => untold,
    reusing: () => untold,
    mayReuse: () => true,
    open: (_service, { address }) => ({ channel: direct(address), path: 'passthrough', viaAgent: false }),
    past: (_service, { address }) => direct(address),
    reached: () => {},
    unreached: () => {},
    policy: () => noPolicy,
    breaker: () => undefined,
  };
}
