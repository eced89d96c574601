import type { Passwd } from '../io/passwd.ts';

/** How often the file is looked at, at most; only while somebody asks. */
const LOOK_MS = 1_000;
/** A name as it travels in OPEN frames and labels; useradd(8) allows less. */
const NAME = /^[\x21-\x7e]{1,64}$/;

/** Names of users for people and labels. Users that only a directory service knows are shown by their numbers. */
export class Users {
  readonly #passwd: Passwd;
  readonly #onChange: () => void;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(passwd: Passwd, onChange: () => void) {
    this.#passwd = passwd;
    this.#onChange = onChange;
  }

  /** The name of a user as it was read last, or the number in text. Looks after changes, without waiting for them. */
  name(uid: number): string {
    if (performance.now() - this.#lookedAt >= LOOK_MS) void this.look();
    const name = this.#passwd.nameOf(uid);
    return name !== undefined && NAME.test(name) ? name : String(uid);
  }

  /** Reads the file if it changed; what cannot be read changes nothing. Never throws. */
  look(): Promise<void> {
    this.#lookedAt = performance.now();
    this.#looking ??= this.#passwd.look().then((changed) => {
      this.#looking = undefined;
      if (changed) this.#onChange();
    });
    return this.#looking;
  }
}
