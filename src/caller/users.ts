import { stat } from 'node:fs/promises';
import { readBounded } from '../io/read-bounded.ts';

/** How often the file is looked at, at most; only while somebody asks. */
const LOOK_MS = 1_000;
const MOST_BYTES = 4 << 20;
/** A name as it travels in OPEN frames and labels; useradd(8) allows less. */
const NAME = /^[\x21-\x7e]{1,64}$/;

/**
 * Names of users, from /etc/passwd and never through NSS: a directory service that does not answer must not stop
 * a connection. Users that only such a service knows are shown by their numbers.
 */
export class Users {
  readonly #path: string;
  readonly #onChange: () => void;
  #names: ReadonlyMap<number, string> = new Map();
  #version = '';
  #lookedAt = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(path: string, onChange: () => void) {
    this.#path = path;
    this.#onChange = onChange;
  }

  /** The name of a user as it was read last, or the number in text. Looks after changes, without waiting for them. */
  name(uid: number): string {
    if (performance.now() - this.#lookedAt >= LOOK_MS) void this.look();
    return this.#names.get(uid) ?? String(uid);
  }

  /** Reads the file if it changed; what cannot be read changes nothing. Never throws. */
  look(): Promise<void> {
    this.#lookedAt = performance.now();
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const status = await stat(this.#path).catch(() => undefined);
    if (status === undefined) return;
    const version = `${status.ino} ${status.size} ${status.mtimeMs}`;
    if (version === this.#version) return;
    const text = await readBounded(this.#path, MOST_BYTES);
    if (text === undefined) return;
    this.#version = version;
    this.#names = parsePasswd(text);
    this.#onChange();
  }
}

/** passwd(5): the first line of a number gives its name. */
function parsePasswd(text: string): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (const line of text.split('\n')) {
    const [name = '', , uid = ''] = line.split(':', 3);
    const number = /^\d{1,10}$/.test(uid) ? Number(uid) : -1;
    if (number >= 0 && NAME.test(name) && !names.has(number)) names.set(number, name);
  }
  return names;
}
