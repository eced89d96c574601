import type { ReloadAnswer } from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { MeshError } from '../../model/errors.ts';
import type { Log } from '../../telemetry/log.ts';
import { type ReloadScope, reloadScope } from './reload-scope.ts';

interface ReloaderOptions {
  readonly log: Log;
  /** Reads the configuration anew; throws when it cannot be used. */
  read(): Config;
  current(): Config;
  stopping(): boolean;
  /** Puts it in force. Throws when it cannot be used, and then nothing has changed. */
  apply(scope: ReloadScope): Promise<void>;
  counted(outcome: 'ok' | 'refused'): void;
}

/** Reloads, one after the other: two at once could leave the older configuration in force. */
export class Reloader {
  readonly #options: ReloaderOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ReloaderOptions) {
    this.#options = options;
  }

  reload(): Promise<ReloadAnswer> {
    const next = this.#last.then(() => this.#once());
    this.#last = next.catch(() => undefined);
    return next;
  }

  async #once(): Promise<ReloadAnswer> {
    const { log, read, current, stopping, apply, counted } = this.#options;
    if (stopping()) throw new MeshError('draining', 'agent', 'the agent stops');
    try {
      const scope = reloadScope(current(), read());
      await apply(scope);
      const { changed, needRestart } = scope;
      counted('ok');
      log.info({ changed, needRestart }, 'reloaded');
      return { changed, needRestart };
    } catch (error) {
      counted('refused');
      log.error({ error }, 'reload refused; the running configuration stays');
      throw error;
    }
  }
}
