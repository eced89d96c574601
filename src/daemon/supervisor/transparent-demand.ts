import type { NodeName, Service, ServiceName } from '../../model/service.ts';
import type { SnapshotDelta } from '../../model/snapshot.ts';
import type { Catalogue } from '../../registry/catalogue.ts';
import type { Log } from '../../telemetry/log.ts';

/** What answers workers: {@link TransparentSockets}. */
interface Served {
  close(): void;
}

/**
 * Sockets that may take any address are handed out only while a service of this host wants them: what is not offered
 * cannot be misused by a worker that was taken over.
 */
export class TransparentDemand {
  readonly #node: NodeName;
  readonly #serve: () => Served;
  readonly #log: Log;
  readonly #wanting = new Set<ServiceName>();
  #unfollow: () => void = () => {};
  #served: Served | undefined;

  /** `serve` begins to hand them out; it may throw a MeshError, and is tried again with the next change. */
  constructor(node: NodeName, serve: () => Served, log: Log) {
    this.#node = node;
    this.#serve = serve;
    this.#log = log;
  }

  /** From now on this catalogue says what services want. */
  follow(catalogue: Catalogue): void {
    this.#unfollow();
    this.#wanting.clear();
    for (const service of catalogue.snapshot.services.values()) this.#note(service);
    this.#check();
    // Heard before workers hear of it, if this was called before they are told.
    this.#unfollow = catalogue.listen({ delta: (delta) => this.#changed(delta) });
  }

  close(): void {
    this.#unfollow();
    this.#served?.close();
    this.#served = undefined;
  }

  #changed({ services, removedServices }: SnapshotDelta): void {
    for (const name of removedServices) this.#wanting.delete(name);
    for (const service of services) this.#note(service);
    this.#check();
  }

  #note({ name, source, instances }: Service): void {
    if (source === 'transparent' && instances.some(({ node }) => node === this.#node))
      this.#wanting.add(name);
    else this.#wanting.delete(name);
  }

  #check(): void {
    if (this.#wanting.size === 0) {
      this.#served?.close();
      this.#served = undefined;
      return;
    }
    try {
      this.#served ??= this.#serve();
    } catch (error) {
      this.#log.error({ error }, 'services with source: transparent cannot be delivered to');
    }
  }
}
