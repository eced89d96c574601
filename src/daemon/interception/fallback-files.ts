import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { reasonOf } from '../../model/errors.ts';
import type { Log } from '../../telemetry/log.ts';

/** Changes of this time are written down together. */
const DELAY_MS = 1_000;
/** Share of the time that goes into writing at most: a large catalogue that changes all the time is written less often. */
const BUSY_SHARE = 0.05;
/** What could not be written is tried again after this long. */
const RETRY_MS = 30_000;

/** Text of each file; undefined for one that is not to be there. As a whole undefined: not known yet. */
type Render = () => Readonly<Record<string, string | undefined>> | undefined;

/**
 * Writes down what has to hold when no agent runs (`<stateDirectory>/fallback`), for systemd/withdraw-rules. Each file is
 * replaced whole; one that cannot be written stays as it was.
 */
export class FallbackFiles {
  readonly #directory: string;
  readonly #log: Pick<Log, 'info' | 'warn'>;
  /** Text of each file as it is on disk, as far as it was written by us. */
  readonly #written = new Map<string, string | undefined>();
  #render: Render | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Another attempt at what could not be written. */
  #retry: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #problem: string | undefined;

  constructor(stateDirectory: string, log: Pick<Log, 'info' | 'warn'>) {
    this.#directory = join(stateDirectory, 'fallback');
    this.#log = log;
  }

  /** Why the files on disk are not what they should be; undefined when they are. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Something that the files depend on has changed. `render` is called when they are written. */
  changed(render: Render): void {
    this.#render = render;
    this.#timer ??= setTimeout(() => void this.flush(), DELAY_MS).unref();
  }

  /** Writes what has changed now. Never rejects. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
    this.#timer = undefined;
    while (this.#writing !== undefined) await this.#writing;
    if (this.#render === undefined) return;
    const render = this.#render;
    this.#render = undefined;
    this.#writing = this.#write(render).finally(() => {
      this.#writing = undefined;
    });
    await this.#writing;
  }

  /** Writes for the last time. */
  async stop(): Promise<void> {
    await this.flush();
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
  }

  async #write(render: Render): Promise<void> {
    const began = performance.now();
    try {
      const texts = render();
      if (texts === undefined) return;
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      for (const [name, text] of Object.entries(texts)) {
        if (this.#written.has(name) && this.#written.get(name) === text) continue;
        this.#written.delete(name);
        const path = join(this.#directory, name);
        await (text === undefined ? rm(path, { force: true }) : replace(path, text));
        this.#written.set(name, text);
      }
      if (this.#problem !== undefined) this.#log.info('fallback: written down again');
      this.#problem = undefined;
    } catch (error) {
      const problem = reasonOf(error);
      if (problem !== this.#problem)
        this.#log.warn({ problem }, 'fallback: what holds without the agent could not be written down');
      this.#problem = problem;
      this.#render ??= render;
      this.#retry = setTimeout(() => void this.flush(), RETRY_MS).unref();
      return;
    }
    if (this.#render !== undefined) return;
    // What comes while we pause waits for the rest of it.
    const pause = (performance.now() - began) / BUSY_SHARE;
    if (pause > DELAY_MS) this.#pause(pause);
  }

  #pause(delayMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#render !== undefined) void this.flush();
    }, delayMs).unref();
  }
}

/** All of the text or what was there before, also when the power fails. */
async function replace(path: string, text: string): Promise<void> {
  const fresh = `${path}.new`;
  try {
    const file = await open(fresh, 'w', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true }).catch(() => undefined);
    throw error;
  }
}
