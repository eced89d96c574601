import { type FSWatcher, watch } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type AllowListEntry, describeProblem, MAX_ALLOW_BYTES, parseAllowList } from './allow-list.ts';

/** How often the file is looked at beside the notifications: inotify tells nothing of bind mounts and network mounts. */
const POLL_INTERVAL_MS = 2000;
/** Quiet time after a notification before the file is read: an editor writes in several steps. */
const SETTLE_MS = 100;

/** What the watch tells its owner. */
interface AllowListObserver {
  /** A list that is to be used from now on. Not called again for the same content. */
  changed(list: readonly AllowListEntry[]): void;
  /**
   * The file cannot be used; the last good list stays. One text for each bad line, or one for the file. When this is
   * the first thing told, there is no good list: nothing should be intercepted until there is one.
   */
  rejected(problems: readonly string[]): void;
  /** There is no file. `kept` is false at the start (the list is empty) and true later (the last good list stays). */
  missing(kept: boolean): void;
}

/** What a look at the file gave; undefined text: there is none. */
type Reading = { readonly text: string | undefined; readonly problem?: never } | { readonly problem: string };

async function readBounded(file: string): Promise<Reading> {
  try {
    const handle = await open(file, 'r');
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) return { problem: `${file}: not a regular file` };
      if (stat.size > MAX_ALLOW_BYTES)
        return { problem: `${file}: ${stat.size} bytes; the bound is ${MAX_ALLOW_BYTES}` };
      return { text: await handle.readFile('utf8') };
    } finally {
      await handle.close();
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return { text: undefined };
    return { problem: `${file}: ${message}` };
  }
}

/**
 * Follows the allow-list file. A missing file is an empty list at the start, so that nobody has to create one. If it
 * disappears while we run, the last good list stays: losing it means capturing what the operator said must never be
 * touched, and a deletion is more often an editor, a package script or a mount that went away. To clear the
 * list, empty the file; a restart without the file starts empty as well.
 */
export class AllowListWatch {
  readonly #file: string;
  readonly #observer: AllowListObserver;
  #watcher: FSWatcher | undefined;
  #poll: NodeJS.Timeout | undefined;
  #settle: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;
  #again = false;
  #stopped = false;
  /** Text of the last look, good or bad: the same is told once. */
  #seen: string | undefined;
  #good = false;

  constructor(file: string, observer: AllowListObserver) {
    this.#file = file;
    this.#observer = observer;
  }

  /** Reads the file for the first time, tells the observer, and follows the file from then on. */
  async start(): Promise<void> {
    await this.reload();
    if (this.#stopped) return;
    this.#poll = setInterval(() => void this.reload(), POLL_INTERVAL_MS);
    this.#poll.unref();
  }

  /** Reads the file now (SIGHUP). Resolves when the observer knows. */
  reload(): Promise<void> {
    if (this.#reading !== undefined) {
      this.#again = true;
      return this.#reading;
    }
    this.#reading = this.#readUntilSettled().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Ends the watch; the observer hears nothing more. */
  stop(): void {
    this.#stopped = true;
    clearInterval(this.#poll);
    clearTimeout(this.#settle);
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #readUntilSettled(): Promise<void> {
    do {
      this.#again = false;
      this.#follow();
      const reading = await readBounded(this.#file);
      if (!this.#stopped) this.#take(reading);
    } while (this.#again && !this.#stopped);
  }

  /** The directory is watched, not the file: editors and package managers replace files by rename. */
  #follow(): void {
    if (this.#watcher !== undefined || this.#stopped) return;
    try {
      const name = basename(this.#file);
      this.#watcher = watch(dirname(this.#file), { persistent: false }, (_event, changed) => {
        if (changed !== null && changed !== name) return;
        clearTimeout(this.#settle);
        this.#settle = setTimeout(() => void this.reload(), SETTLE_MS);
        this.#settle.unref();
      });
      // The directory itself went away: the poll finds it again.
      this.#watcher.on('error', () => {
        this.#watcher?.close();
        this.#watcher = undefined;
      });
    } catch {
      this.#watcher = undefined;
    }
  }

  #take(reading: Reading): void {
    const seen = reading.problem ?? (reading.text === undefined ? 'missing' : `text:${reading.text}`);
    if (seen === this.#seen) return;
    this.#seen = seen;
    if (reading.problem !== undefined) {
      this.#observer.rejected([reading.problem]);
      return;
    }
    if (reading.text === undefined) {
      this.#observer.missing(this.#good);
      return;
    }
    const { entries, problems } = parseAllowList(reading.text);
    if (problems.length > 0) {
      this.#observer.rejected(problems.map((problem) => describeProblem(this.#file, problem)));
      return;
    }
    this.#good = true;
    this.#observer.changed(entries);
  }
}
