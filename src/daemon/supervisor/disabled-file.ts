import { lstat } from 'node:fs/promises';

/** How often the file is looked for: an operator who has made it waits at most this long and the time of a change of rules. */
const POLL_MS = 500;

/** What the watch tells its owner. */
interface DisabledObserver {
  /** Told at the start, and whenever it changes. */
  changed(disabled: boolean): void;
  /** It cannot be seen whether the file is there; what was known stays. Told once in a row. */
  failed(reason: string): void;
}

/**
 * Follows `capture.disabledFile`: while something of that name is there, nothing is intercepted. It is looked for by time
 * alone, so that it does not matter how it came (touch, a mount, a configuration tool) or whether its directory was there.
 */
export class DisabledFile {
  readonly #observer: DisabledObserver;
  #path: string;
  #disabled: boolean | undefined;
  #failing = false;
  #looking = false;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(path: string, observer: DisabledObserver) {
    this.#path = path;
    this.#observer = observer;
  }

  /** Looks for the first time, before anything is intercepted, and then again and again. */
  async start(): Promise<void> {
    await this.#look();
    if (!this.#stopped) this.#timer = setInterval(() => void this.#look(), POLL_MS).unref();
  }

  /** The next look is for this file. */
  configure(path: string): void {
    this.#path = path;
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#looking) return; // a file system that does not answer is asked once
    this.#looking = true;
    const found = await lstat(this.#path).then(
      () => true,
      (error: NodeJS.ErrnoException) =>
        error.code === 'ENOENT' || error.code === 'ENOTDIR' ? false : error.message,
    );
    this.#looking = false;
    if (this.#stopped) return;
    if (typeof found === 'string') {
      if (!this.#failing) this.#observer.failed(found);
      this.#failing = true;
      return;
    }
    this.#failing = false;
    if (found === this.#disabled) return;
    this.#disabled = found;
    this.#observer.changed(found);
  }
}
