import { type FSWatcher, watch } from 'node:fs';
import { formatProblem } from '../config/problem.ts';
import { Settling } from '../io/settling.ts';
import { fingerprintOf, readDirectory } from './directory.ts';
import type { PolicyReader } from './reader.ts';
import type { PolicyContent, PolicyFile } from './reading.ts';

/** Changes that come within this time are read together; editors and tools write in several steps. */
const DEBOUNCE_MS = 50;
/** A change is read at the latest after this time, however many follow it. */
const LATEST_MS = 250;
/** Watches miss things (network file systems, a link that is put elsewhere): the directory is compared this often. */
const RESCAN_MS = 2000;

/** What was not read to its end is read again: after 1, 2, 4 and so on of those times, at most after this many. */
const MOST_RESCANS = 32;

/** What the watch tells its owner. The same is told once. */
export interface PolicyObserver {
  /** A set that is good as a whole, and what it was read from; to be used from now on. */
  changed(content: PolicyContent, files: readonly PolicyFile[]): void;
  /** Something is wrong: the last good set stays. One text for each problem. */
  refused(problems: readonly string[]): void;
  /** There is no such directory. */
  missing(): void;
  /** What is no reason to refuse it; empty when there is nothing any more. */
  warned(warnings: readonly string[]): void;
}

/** What was told last: the same is not told again. */
interface Told {
  readonly files?: readonly PolicyFile[];
  readonly problems?: string;
}

/** Follows a directory of policy documents. */
export class PolicyWatch {
  readonly #directory: string;
  readonly #reader: PolicyReader;
  readonly #observer: PolicyObserver;
  readonly #changes = new Settling(DEBOUNCE_MS, LATEST_MS, () => void this.look());
  #watcher: FSWatcher | undefined;
  #rescan: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #again = false;
  #stopped = false;
  #fingerprint: string | undefined;
  #told: Told | undefined;
  /** How often in a row the reader did not come to the end, and how many rescans it is left alone. */
  #unread = 0;
  #rescansLeft = 0;
  #warnings = '';

  constructor(directory: string, reader: PolicyReader, observer: PolicyObserver) {
    this.#directory = directory;
    this.#reader = reader;
    this.#observer = observer;
  }

  /** Looks for the first time, and follows from then on. Resolves when the observer knows. */
  async start(): Promise<void> {
    await this.look();
    if (!this.#stopped) this.#rescan = setInterval(() => void this.#compare(), RESCAN_MS).unref();
  }

  /** Reads it now. Resolves when the observer knows. */
  look(): Promise<void> {
    this.#changes.clear();
    if (this.#looking !== undefined) this.#again = true;
    else
      this.#looking = this.#lookUntilSettled().finally(() => {
        this.#looking = undefined;
      });
    return this.#looking;
  }

  /** Ends the watch; the observer hears nothing more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#rescan);
    this.#changes.clear();
    this.#unwatch();
    await this.#reader.close();
    await this.#looking;
    await this.#reader.close();
  }

  async #lookUntilSettled(): Promise<void> {
    do {
      this.#again = false;
      // Watched before it is read: what changes in between is then noticed.
      this.#follow();
      await this.#lookOnce();
    } while (this.#again && !this.#stopped);
  }

  async #lookOnce(): Promise<void> {
    const reading = await readDirectory(this.#directory);
    if (this.#stopped) return;
    if (reading === 'missing') {
      this.#unwatch();
      this.#fingerprint = undefined;
      if (this.#told?.problems !== 'missing') this.#observer.missing();
      this.#told = { problems: 'missing' };
      return;
    }
    if ('problems' in reading) {
      this.#fingerprint = undefined;
      this.#refuse(reading.problems.map(formatProblem));
      return;
    }
    const { fingerprint, files, warnings } = reading;
    this.#fingerprint = fingerprint;
    this.#warn(warnings);
    if (this.#told?.files !== undefined && sameFiles(this.#told.files, files)) return;
    const content = files.length === 0 ? nothing : await this.#reader.read(files);
    if (this.#stopped) return;
    this.#unread = 'unread' in content ? this.#unread + 1 : 0;
    this.#rescansLeft = Math.min(2 ** (this.#unread - 1), MOST_RESCANS);
    if ('problems' in content) this.#refuse(content.problems.map(formatProblem));
    else {
      this.#told = { files };
      this.#observer.changed(content, files);
    }
  }

  #refuse(problems: readonly string[]): void {
    const text = problems.join('\n');
    if (this.#told?.problems !== text) this.#observer.refused(problems);
    this.#told = { problems: text };
  }

  #warn(warnings: readonly string[]): void {
    const text = warnings.join('\n');
    if (text !== this.#warnings) this.#observer.warned(warnings);
    this.#warnings = text;
  }

  /** Looks when the directory is not what it was. What changes without another fingerprint is told by the watch. */
  async #compare(): Promise<void> {
    if (this.#looking !== undefined) return;
    const now = await fingerprintOf(this.#directory);
    const retry = this.#unread > 0 && --this.#rescansLeft <= 0;
    if (!this.#stopped && (retry || now === undefined || now !== this.#fingerprint)) {
      this.#unwatch(); // it may be another directory
      await this.look();
    }
  }

  #follow(): void {
    if (this.#watcher !== undefined || this.#stopped) return;
    try {
      this.#watcher = watch(this.#directory, { persistent: false }, () => this.#changes.touch());
      this.#watcher.on('error', () => this.#unwatch());
    } catch {
      // Not there, or no inotify watch left: it is compared all the same.
      this.#watcher = undefined;
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }
}

const nothing: PolicyContent = { policies: { common: {}, services: {} }, origins: {} };

function sameFiles(a: readonly PolicyFile[], b: readonly PolicyFile[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ path, bytes }, at) => {
      const other = b[at]!;
      return path === other.path && Buffer.compare(bytes, other.bytes) === 0;
    })
  );
}
