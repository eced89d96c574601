import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CgroupTree, findCgroupRoot, walkCgroups } from './cgroup-tree.ts';
import { SliceWatch } from './slice-watch.ts';

/**
 * After a walk nothing is walked for nine times as long as it took, so that at most a tenth of the time goes into it; but
 * not for so long that a name comes too late (`caller.timeout`, 1 s).
 */
const PAUSE_FACTOR = 9;
const LEAST_PAUSE_MS = 20;
const MOST_PAUSE_MS = 500;
/** Without anybody asking: what is gone is forgotten, so that an id that the kernel gives again has its new name. */
const REFRESH_MS = 30_000;
/** Directories that appear during one walk. */
const MOST_APPEARED = 1_000;

/**
 * When the cgroups are walked: one walk at a time, at most a share of the time, however many ask. Between walks units and
 * containers that start are noted as they appear.
 */
export class CgroupWalks {
  /** What the last walk saw, and what appeared since. */
  tree = new CgroupTree();
  readonly #onWalked: (beganAt: number) => void;
  readonly #refresh: NodeJS.Timeout;
  #root: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #walking = false;
  #watch: SliceWatch | undefined;
  /** What appeared during a walk, which may have passed its place already. */
  #appeared: { readonly path: string; readonly inode: number }[] = [];
  #wanted = false;
  #notBefore = 0;
  #closed = false;

  /**
   * `onWalked` is told when a walk is over, and when something appeared; everything that was there at `beganAt` has been
   * seen.
   */
  constructor(onWalked: (beganAt: number) => void, root?: string) {
    this.#onWalked = onWalked;
    this.#root = root;
    this.#refresh = setInterval(() => this.want(), REFRESH_MS).unref();
  }

  /** Asks for a walk that begins from now on. */
  want(): void {
    if (this.#walking) this.#wanted = true;
    else if (this.#timer === undefined && !this.#closed) {
      const pause = Math.max(0, this.#notBefore - performance.now());
      this.#timer = setTimeout(() => void this.#walk(), pause).unref();
    }
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#refresh);
    clearTimeout(this.#timer);
    this.#watch?.close();
  }

  async #walk(): Promise<void> {
    this.#timer = undefined;
    this.#walking = true;
    this.#wanted = false;
    const began = performance.now();
    this.#root ??= await findCgroupRoot();
    if (this.#root !== undefined && !this.#closed) await this.#look(this.#root);
    const took = performance.now() - began;
    const pause = Math.min(MOST_PAUSE_MS, Math.max(LEAST_PAUSE_MS, PAUSE_FACTOR * took));
    this.#notBefore = performance.now() + pause;
    this.#walking = false;
    if (this.#closed) return;
    this.#onWalked(began);
    if (this.#wanted) this.want();
  }

  async #look(root: string): Promise<void> {
    this.#appeared = [];
    const tree = await walkCgroups(root);
    for (const { path, inode } of this.#appeared) tree.note(root, path, inode);
    this.#appeared = [];
    this.tree = tree;
    this.#watch ??= new SliceWatch(root, (path) => void this.#note(root, path));
    if (!this.#closed) this.#watch.follow(tree.slices);
  }

  async #note(root: string, path: string): Promise<void> {
    const status = await stat(join(root, path)).catch(() => undefined);
    if (this.#closed || status === undefined || !status.isDirectory()) return;
    this.tree.note(root, path, status.ino);
    if (this.#walking && this.#appeared.length < MOST_APPEARED)
      this.#appeared.push({ path, inode: status.ino });
    // What lies in a new slice appeared before it was watched.
    if (path.endsWith('.slice')) this.want();
    this.#onWalked(Number.NEGATIVE_INFINITY);
  }
}
