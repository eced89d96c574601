import type { PolicyStatus } from '../../admin/api.ts';
import { formatProblem } from '../../config/problem.ts';
import { emptyPolicySet, type PolicySet } from '../../model/policy.ts';
import type { PolicyReader } from '../../policy/reader.ts';
import type { PolicyContent, PolicyFile, PolicyOrigins } from '../../policy/reading.ts';
import { PolicyWatch } from '../../policy/watch.ts';
import type { Log } from '../../telemetry/log.ts';
import type { KeptPolicies, PolicyStore } from './policy-store.ts';

interface PolicyFeedOptions {
  readonly directory: string;
  readonly reader: PolicyReader;
  readonly store: Pick<PolicyStore, 'load' | 'keep' | 'flush'>;
  readonly log: Log;
  /** Another set is in force: for every worker. */
  publish(policies: PolicySet): void;
  /** For whoever follows what happens, in one sentence. */
  onEvent(text: string): void;
  /** Why there are no policies although there should be; undefined when there are. */
  onBlocked(reason: string | undefined): void;
}

/**
 * Policies in force on this host: those of the directory, as long as all of its documents are good; else the last good
 * ones, over restarts as well.
 */
export class PolicyFeed {
  readonly #options: PolicyFeedOptions;
  readonly #watch: PolicyWatch;
  #current: PolicySet = emptyPolicySet;
  #origins: PolicyOrigins = {};
  #since = Date.now();
  #source: PolicyStatus['source'] = 'none';
  #refused: readonly string[] = [];
  #warnings: readonly string[] = [];
  #kept: KeptPolicies | undefined;

  constructor(options: PolicyFeedOptions) {
    this.#options = options;
    this.#watch = new PolicyWatch(options.directory, options.reader, {
      changed: (content, files) => this.#use(content, files),
      refused: (problems) => this.#refuse(problems),
      missing: () => this.#missing(),
      warned: (warnings) => this.#warn(warnings),
    });
  }

  get current(): PolicySet {
    return this.#current;
  }

  get origins(): PolicyOrigins {
    return this.#origins;
  }

  get status(): PolicyStatus {
    return {
      directory: this.#options.directory,
      version: this.#current.version,
      services: Object.keys(this.#current.services).length,
      since: this.#since,
      source: this.#source,
      refused: this.#refused,
      warnings: this.#warnings,
    };
  }

  /** Reads the directory for the first time; resolves when there is something to go by. Never fails. */
  async start(): Promise<void> {
    const { store, reader, log } = this.#options;
    this.#kept = await store.load();
    await this.#watch.start();
    if (this.#refused.length === 0 || this.#source !== 'none') return;
    const kept = this.#kept;
    const content = kept === undefined ? undefined : await reader.read(kept.files);
    if (kept !== undefined && content !== undefined && 'policies' in content) {
      this.#put(content, kept.version, 'kept');
      log.warn({ version: kept.version }, 'policies: those of the last run stay in force');
      return;
    }
    const problems =
      content !== undefined && 'problems' in content ? content.problems.map(formatProblem) : undefined;
    this.#options.onBlocked(`no policies are in force: ${this.#refused[0]}`);
    log.error({ kept: problems }, 'policies: none are in force, and none were kept of an earlier run');
  }

  /** Reads the directory now; resolves when what it says is in force or refused. */
  reload(): Promise<void> {
    return this.#watch.look();
  }

  async stop(): Promise<void> {
    await this.#watch.stop();
    await this.#options.store.flush();
  }

  #use(content: PolicyContent, files: readonly PolicyFile[]): void {
    const { store, log } = this.#options;
    const unchanged = this.#kept !== undefined && sameTexts(this.#kept.files, files);
    const version = unchanged
      ? this.#kept!.version
      : Math.max(this.#current.version, this.#kept?.version ?? 0) + 1;
    const services = Object.keys(content.policies.services).length;
    // An agent without policies, today and ever: nothing to tell anybody, and nothing to keep.
    const nothingEver = files.length === 0 && this.#kept === undefined && this.#current.version === 0;
    this.#refused = [];
    this.#put(content, nothingEver ? 0 : version, 'directory');
    if (nothingEver) return;
    if (!unchanged) {
      this.#kept = { version, files };
      store.keep(this.#kept);
    }
    log.info({ version, files: files.length, services }, 'policies: in force');
    this.#options.onEvent(`version ${version} is in force: ${files.length} files, ${services} services`);
  }

  #put(content: PolicyContent, version: number, source: PolicyStatus['source']): void {
    this.#origins = content.origins;
    this.#source = source;
    this.#options.onBlocked(undefined);
    if (version === this.#current.version) return;
    this.#current = { version, ...content.policies };
    this.#since = Date.now();
    this.#options.publish(this.#current);
  }

  #refuse(problems: readonly string[]): void {
    const { version } = this.#current;
    this.#refused = problems;
    this.#options.log.error({ problems, version }, 'policies: refused; the last good ones stay');
    this.#options.onEvent(`refused, version ${version} stays: ${problems[0]}`);
  }

  /** A directory that is gone is more often a mount or a slip than a wish; to end all policies its files are deleted. */
  #missing(): void {
    const had = this.#current.version > 0 || (this.#kept?.files.length ?? 0) > 0;
    if (had)
      this.#refuse([`${this.#options.directory}: found no such directory, expected the one that was there`]);
    else this.#use({ policies: { common: {}, services: {} }, origins: {} }, []);
  }

  #warn(warnings: readonly string[]): void {
    this.#warnings = warnings;
    if (warnings.length > 0) this.#options.log.warn({ warnings }, 'policies: look at their permissions');
  }
}

function sameTexts(a: readonly PolicyFile[], b: readonly PolicyFile[]): boolean {
  return (
    a.length === b.length &&
    a.every((file, at) => file.path === b[at]!.path && Buffer.compare(file.bytes, b[at]!.bytes) === 0)
  );
}
