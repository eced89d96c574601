import { type CgroupTree, findCgroupRoot, walkCgroups } from './cgroup-tree.ts';

/**
 * After a walk nothing is walked for nine times as long as it took, so that at most a tenth of the time goes into it; but
 * not for so long that a name comes too late (`caller.timeout`, 1 s).
 */
const PAUSE_FACTOR = 9;
const LEAST_PAUSE_MS = 20;
const MOST_PAUSE_MS = 500;
/** Without anybody asking: what is gone is forgotten, so that an id that the kernel gives again has its new name. */
const REFRESH_MS = 30_000;

/** When the cgroups are walked: one walk at a time, at most a share of the time, however many ask. */
export class CgroupWalks {
  /** What the last walk saw. */
  tree: CgroupTree = { names: new Map(), containers: new Map() };
  readonly #onWalked: (beganAt: number) => void;
  readonly #refresh: NodeJS.Timeout;
  #root: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #walking = false;
  #wanted = false;
  #notBefore = 0;
  #closed = false;

  /** `onWalked` is told when a walk is over; everything that was there at `beganAt` has been seen. */
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
  }

  async #walk(): Promise<void> {
    this.#timer = undefined;
    this.#walking = true;
    this.#wanted = false;
    const began = performance.now();
    this.#root ??= await findCgroupRoot();
    if (this.#root !== undefined) this.tree = await walkCgroups(this.#root);
    const took = performance.now() - began;
    const pause = Math.min(MOST_PAUSE_MS, Math.max(LEAST_PAUSE_MS, PAUSE_FACTOR * took));
    this.#notBefore = performance.now() + pause;
    this.#walking = false;
    if (this.#closed) return;
    this.#onWalked(began);
    if (this.#wanted) this.want();
  }
}
