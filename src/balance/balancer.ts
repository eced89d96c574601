import { noPolicy, type ServicePolicy, type Subset } from '../model/policy.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../model/service.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { HealthTransition } from './health.ts';
import type { InstanceView } from './instance-view.ts';
import type { Locality } from './locality.ts';
import { type BalanceRule, balanceRule, type EjectionSettings } from './rule.ts';
import { ServiceBalance, type ServiceBalanceDependencies } from './service-balance.ts';
import { type PickToken, UNCOUNTED } from './token.ts';

export type { PickToken } from './token.ts';

/** Services looked at for removal with each new snapshot: all in turn, and never a long pause. */
const SWEEP_BATCH = 64;

/** What a balancer is given. */
interface BalancerOptions {
  readonly locality: Locality;
  readonly ejection: EjectionSettings;
  /** What operators say of a service; the same object for as long as it is in use. Absent: nothing. */
  readonly policy?: (service: ServiceName) => ServicePolicy;
  /** Told of every change of an instance's health. */
  readonly onTransition?: (transition: HealthTransition) => void;
  /** An instance that was set aside is not registered any more. */
  readonly onForgotten?: (service: ServiceName, instance: InstanceId) => void;
  /** A service that is to be probed is in use; told now and then while it is. */
  readonly onUse?: (service: Service) => void;
  /** Milliseconds, never going back. */
  readonly now?: () => number;
  /** From 0 up to 1. */
  readonly random?: () => number;
}

/** Narrows the choice of an instance. */
interface Choice {
  /** Only instances with all of these labels; told apart by identity. */
  readonly subset?: Subset;
  /** Same text, same instance, where the service is balanced by hash. */
  readonly key?: string;
}

/** Picks instances, and remembers how they did. One for each worker. */
export class Balancer {
  readonly #services = new Map<ServiceName, ServiceBalance>();
  readonly #policy: (service: ServiceName) => ServicePolicy;
  readonly #dependencies: ServiceBalanceDependencies;
  #locality: Locality;
  #ejection: EjectionSettings;
  #snapshot: Snapshot | undefined;
  /** Of what is said about services. */
  #generation = 0;
  #sweep = this.#services.values();

  constructor(options: BalancerOptions) {
    this.#locality = options.locality;
    this.#ejection = options.ejection;
    this.#policy = options.policy ?? (() => noPolicy);
    this.#dependencies = {
      now: options.now ?? (() => performance.now()),
      random: options.random ?? Math.random,
      locality: () => this.#locality,
      onTransition: options.onTransition ?? (() => {}),
      onForgotten: options.onForgotten ?? (() => {}),
      onUse: options.onUse ?? (() => {}),
    };
  }

  /**
   * The newest snapshot: picks are made from it, whichever older one a connection was routed by, because a
   * deregistered instance must get nothing new. Services that are gone are forgotten, some with each call.
   */
  use(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    for (let i = 0; i < SWEEP_BATCH; i++) {
      const { value: balance, done } = this.#sweep.next();
      if (done) {
        this.#sweep = this.#services.values();
        return;
      }
      const { name } = balance.service;
      if (snapshot.services.has(name)) continue;
      balance.forget();
      this.#services.delete(name);
    }
  }

  /** Another configuration; what is known of the instances stays. */
  configure(options: Pick<BalancerOptions, 'locality' | 'ejection'>): void {
    this.#locality = options.locality;
    this.#ejection = options.ejection;
    this.usePolicies();
  }

  /** Policies have changed: each service follows when it is used next. What is known of the instances stays. */
  usePolicies(): void {
    this.#generation++;
  }

  /** An instance for a new connection, none of the excluded (compared by id); undefined when there is none. */
  pick(service: Service, exclude: ReadonlySet<Instance>, choice?: Choice): Instance | undefined {
    return this.#balance(service)?.pick(exclude, choice?.subset, choice?.key);
  }

  /** Called for every attempt, whether the instance came from `pick` or was named by its address. */
  started(service: Service, instance: Instance): PickToken {
    return this.#balance(service)?.started(instance.id) ?? UNCOUNTED;
  }

  /** Probes have said, often enough in a row, that an instance is well, or is not. */
  probed(service: ServiceName, instance: InstanceId, healthy: boolean): void {
    this.#services.get(service)?.probed(instance, healthy);
  }

  /** A service is not probed any more. */
  release(service: ServiceName): void {
    this.#services.get(service)?.release();
  }

  /** What is known of a service's instances; for people. */
  view(service: ServiceName): readonly InstanceView[] {
    return this.#services.get(service)?.view() ?? [];
  }

  /** The same of all services that were used. */
  *views(): Generator<readonly [ServiceName, readonly InstanceView[]], undefined> {
    for (const [service, balance] of this.#services) yield [service, balance.view()];
    return undefined;
  }

  /** A service as the newest snapshot has it; undefined when that has it no more. */
  #balance(service: Service): ServiceBalance | undefined {
    const current = this.#snapshot === undefined ? service : this.#snapshot.services.get(service.name);
    if (current === undefined) return undefined;
    const known = this.#services.get(current.name);
    if (known === undefined) {
      const made = new ServiceBalance(current, this.#rule(current), this.#dependencies);
      made.generation = this.#generation;
      this.#services.set(current.name, made);
      return made;
    }
    const updated = known.service !== current;
    if (updated) known.update(current);
    if (updated || known.generation !== this.#generation) {
      known.generation = this.#generation;
      known.configure(this.#rule(current));
    }
    return known;
  }

  #rule({ name, balance }: Service): BalanceRule {
    return balanceRule(this.#ejection, balance, this.#policy(name));
  }
}
