import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';

/** Slices that are watched; hosts have a handful, and the kernel's instances of inotify are few (128 for a user). */
const MOST_WATCHED = 32;

/**
 * Tells of directories that appear in slices: those of units and containers that start, before their first process has
 * come so far as to connect. Where watching is not possible nothing is told, and walks find them later.
 */
export class SliceWatch {
  readonly #root: string;
  readonly #onAppeared: (path: string) => void;
  readonly #watchers = new Map<string, FSWatcher>();

  constructor(root: string, onAppeared: (path: string) => void) {
    this.#root = root;
    this.#onAppeared = onAppeared;
  }

  /** Watches these slices (paths below the root) and no others. */
  follow(slices: readonly string[]): void {
    const wanted = new Set(slices.slice(0, MOST_WATCHED));
    for (const [slice, watcher] of this.#watchers) {
      if (wanted.has(slice)) continue;
      watcher.close();
      this.#watchers.delete(slice);
    }
    for (const slice of wanted) if (!this.#watchers.has(slice)) this.#watch(slice);
  }

  close(): void {
    this.follow([]);
  }

  #watch(slice: string): void {
    try {
      const watcher = watch(join(this.#root, slice), { persistent: false }, (event, name) => {
        // `rename` is what appears and what goes; `change` is a value that was written.
        if (event === 'rename' && name !== null) this.#onAppeared(`${slice}/${name}`);
      });
      watcher.on('error', () => {
        watcher.close();
        this.#watchers.delete(slice);
      });
      this.#watchers.set(slice, watcher);
    } catch {
      // The slice is gone, or there are too many watches.
    }
  }
}
