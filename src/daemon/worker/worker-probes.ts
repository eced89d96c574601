import { ActiveProbes } from '../../balance/active-probes.ts';
import { UNCOUNTED } from '../../balance/token.ts';
import { httpQuestion } from '../../http/probe.ts';
import type { ActiveProbe } from '../../model/policy.ts';
import type { InstanceId, ServiceName } from '../../model/service.ts';
import { type Asking, Prober, type ProberDependencies } from '../../proxy/prober.ts';

/** Makes the probes that policies ask for. They go the ways of connections, and count for nobody's load. */
export function workerProbes(
  dependencies: Omit<ProberDependencies, 'started'> & {
    policy(service: ServiceName): ActiveProbe | undefined;
    report(service: ServiceName, instance: InstanceId, healthy: boolean): void;
    release(service: ServiceName): void;
    probed(service: ServiceName, outcome: string): void;
  },
): ActiveProbes {
  const prober = new Prober({ ...dependencies, started: () => UNCOUNTED });
  return new ActiveProbes({
    policy: (service) => dependencies.policy(service),
    ask: (service, instance, { http, timeout }, done) => {
      const question = http === undefined ? undefined : httpQuestion(http, service.name);
      const asking: Asking = { timeout, question };
      prober.probe(
        service,
        instance,
        (outcome) => {
          dependencies.probed(service.name, outcome);
          done(outcome);
        },
        asking,
      );
    },
    report: (service, instance, healthy) => dependencies.report(service, instance, healthy),
    release: (service) => dependencies.release(service),
  });
}
