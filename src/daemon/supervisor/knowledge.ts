import { FileTier } from '../../cache/file-tier.ts';
import { type Resolution, type StoredAnswer, Tiers } from '../../cache/tiers.ts';
import type { Config } from '../../config/schema.ts';
import { endpointKey } from '../../model/address.ts';
import type { Service } from '../../model/service.ts';
import { Catalogue } from '../../registry/catalogue.ts';
import { type CatalogueRecord, parseCatalogueRecord, parseService } from '../../registry/catalogue-record.ts';
import { createSource } from '../../registry/create-source.ts';
import type { Question } from '../../registry/source.ts';
import type { Log } from '../../telemetry/log.ts';

/** Suffix of the file for on-demand answers, beside the catalogue's. */
const ANSWERS_SUFFIX = '.answers';

interface KnowledgeOptions {
  /** Told of every answer to an on-demand question. */
  answered(tier: string, known: boolean): void;
  /** Adds what this host gives a service itself. */
  decorate(service: Service): Service;
}

/**
 * What this agent knows, and from where: registries, with memory and file in front of them. A cold boot with every
 * registry gone serves what was known.
 */
export class Knowledge {
  readonly catalogue: Catalogue;
  readonly #file: FileTier<CatalogueRecord>;
  readonly #tiers: Tiers<Question, Service>;
  /** True once something is known: from the cache, or because a registry answered. */
  #known = false;
  readonly #answered: (tier: string, known: boolean) => void;

  constructor(config: Config, log: Log, options: KnowledgeOptions) {
    this.#answered = options.answered;
    const { cache, registries, node, balance } = config;
    const context = { zone: node.zone, balance: balance.policy, log: log.child({ component: 'registry' }) };
    const cacheLog = log.child({ component: 'cache' });
    this.catalogue = new Catalogue(
      registries.map((registry) => createSource(registry, context)),
      context.log,
      options.decorate,
    );
    this.#file = new FileTier({
      path: cache.file,
      writeDelay: cache.writeDelay,
      check: parseCatalogueRecord,
      log: cacheLog,
    });
    this.#tiers = new Tiers<Question, Service>({
      ...cache,
      keyOf: (question) =>
        question.kind === 'service'
          ? `service ${question.name}`
          : `address ${endpointKey(question.endpoint)}`,
      ask: (question, signal) => this.catalogue.lookup(question, signal),
      file: new FileTier({
        path: cache.file + ANSWERS_SUFFIX,
        writeDelay: cache.writeDelay,
        check: parseStoredAnswer,
        log: cacheLog,
      }),
    });
  }

  get known(): boolean {
    return (
      this.#known || this.catalogue.status.registries.some(({ confirmedAt }) => confirmedAt !== undefined)
    );
  }

  get cacheStatus() {
    return this.#file.status;
  }

  /** Takes what the disk remembers. Never fails: what cannot be read is not there. */
  async load(): Promise<void> {
    const [{ records }] = await Promise.all([this.#file.load(), this.#tiers.load()]);
    this.#known = records.length > 0;
    this.catalogue.seed(records);
  }

  /** Takes what another one knows: registries that both follow go on from there. */
  succeed(previous: Knowledge): void {
    this.#known = previous.known;
    this.catalogue.seed(previous.catalogue.records());
  }

  /** Begins to follow the registries, and to write down what they say. */
  start(): void {
    this.catalogue.listen({
      delta: () => {},
      changed: () => this.#file.changed(() => this.catalogue.records()),
    });
    this.catalogue.start();
  }

  /** One question to registries that cannot be followed whole, through the tiers. */
  async ask(question: Question): Promise<Resolution<Service>> {
    const resolution = await this.#tiers.resolve(question);
    this.#answered(resolution.tier, resolution.value !== undefined);
    return resolution;
  }

  async stop(): Promise<void> {
    await this.catalogue.stop();
    await this.#file.flush();
  }
}

function parseStoredAnswer(record: unknown): StoredAnswer<Service> | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { key, at, value } = record as Readonly<Record<string, unknown>>;
  if (typeof key !== 'string' || typeof at !== 'number') return undefined;
  const service = parseService(value);
  return service && { key, at, value: service };
}
