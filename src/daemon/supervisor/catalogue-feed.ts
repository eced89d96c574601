import type { Snapshot, SnapshotDelta } from '../../model/snapshot.ts';
import type { Knowledge } from './knowledge.ts';
import { SentSnapshots } from './sent-snapshots.ts';

interface CatalogueFeedOptions {
  /** The next change, for every worker. */
  publish(delta: SnapshotDelta): void;
  /** There is another catalogue: every worker is given all of it. */
  restart(): void;
  registryLost(source: string): void;
  /** Why what the registries say is not in force; undefined when it is. */
  onBlocked(reason: string | undefined): void;
  /** For the first time there is something to know: a registry has answered, or the cache had it. */
  onKnown(): void;
}

/** Hands the catalogue to the workers, and knows how much of it is in force. */
export class CatalogueFeed {
  readonly #options: CatalogueFeedOptions;
  readonly #sent = new SentSnapshots();
  #knowledge: Knowledge;
  /** Version whose destinations are redirected, and the one with which the catalogue was first known. */
  #applied = Number.NEGATIVE_INFINITY;
  #knownSince: number | undefined;

  constructor(knowledge: Knowledge, options: CatalogueFeedOptions) {
    this.#knowledge = knowledge;
    this.#options = options;
  }

  get knowledge(): Knowledge {
    return this.#knowledge;
  }

  /** From now on every change of the catalogue goes to the workers. */
  follow(): void {
    const { catalogue } = this.#knowledge;
    catalogue.listen({
      delta: (delta) => {
        this.#sent.sent(catalogue.snapshot);
        this.#options.publish(delta);
      },
      status: (source, { state }) => {
        if (state === 'unreachable') this.#options.registryLost(source);
        this.#check();
      },
    });
    this.#knowledge.start();
    this.#check();
  }

  /** Other registries or another cache: what is known stays until the new ones have answered. */
  async replace(next: Knowledge): Promise<void> {
    next.succeed(this.#knowledge);
    await this.#knowledge.stop();
    this.#knowledge = next;
    this.#sent.clear();
    this.#applied = Number.NEGATIVE_INFINITY;
    this.#knownSince = undefined;
    this.#options.restart();
    this.follow();
  }

  /** The whole catalogue, for a worker that begins. */
  full(): readonly SnapshotDelta[] {
    this.#sent.sent(this.#knowledge.catalogue.snapshot);
    return this.#knowledge.catalogue.full();
  }

  /** Every worker routes by this version: the newest snapshot that it covers, once. */
  acknowledged(version: number): Snapshot | undefined {
    return this.#sent.acknowledged(version);
  }

  /** The destinations of this version are redirected now. */
  applied(version: number): void {
    this.#applied = version;
    this.#check();
  }

  /**
   * Blocked while a registry that never answered meets an empty cache, and until what became known first is in force.
   */
  #check(): void {
    let reason: string | undefined;
    if (!this.#knowledge.known) reason = 'no registry has answered and the cache is empty';
    else {
      if (this.#knownSince === undefined) {
        this.#knownSince = this.#knowledge.catalogue.snapshot.version;
        this.#options.onKnown();
      }
      if (this.#applied < this.#knownSince) reason = 'what the registries say is not in force yet';
    }
    this.#options.onBlocked(reason);
  }
}
