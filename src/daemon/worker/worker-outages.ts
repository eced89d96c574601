import { Outages } from '../../balance/outages.ts';
import type { ServiceName } from '../../model/service.ts';
import type { Claim } from '../../model/snapshot.ts';
import { Prober, type ProberDependencies } from '../../proxy/prober.ts';
import type { Log } from '../../telemetry/log.ts';

/** Makes what this worker knows to be dead by experience; probes go the ways of connections. */
export function workerOutages(
  dependencies: ProberDependencies & {
    interval(): number;
    onChange(down: readonly Claim[]): void;
    probed(service: ServiceName, outcome: string): void;
    readonly log: Log;
  },
): Outages {
  const prober = new Prober(dependencies);
  let told = true;
  const outages: Outages = new Outages({
    interval: () => dependencies.interval(),
    probe: (service, instance, done) =>
      prober.probe(service, instance, (outcome) => {
        dependencies.probed(service.name, outcome);
        done(outcome);
      }),
    // One message for all that changes together: a host that dies takes many services along.
    onChange: () => {
      if (!told) return;
      told = false;
      queueMicrotask(() => {
        told = true;
        dependencies.onChange(outages.down);
      });
    },
    onTransition: ({ service, instance }, to) => {
      const from = to === 'down' ? 'up' : 'down';
      dependencies.log.info(
        { service, instance, from, to },
        `${instance === undefined ? 'service' : 'instance'}: ${from} → ${to}`,
      );
    },
  });
  return outages;
}
