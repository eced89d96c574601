import { readFileSync, statSync } from 'node:fs';

/** Most bytes that are read: some hundred thousand users. */
const MAX_PASSWD_BYTES = 16 * 1024 * 1024;

/**
 * The users of /etc/passwd, read again when the file changed. Never asked through NSS: a directory service that does not
 * answer must not hold up the daemon.
 */
export class Passwd {
  readonly #file: string;
  readonly #uids = new Map<string, number>();
  readonly #names = new Map<number, string>();
  #stamp = '';

  constructor(file = '/etc/passwd') {
    this.#file = file;
  }

  /** Looks at the file; true when users may have changed. What was read last stays while it cannot be read. */
  refresh(): boolean {
    try {
      const { ino, size, mtimeMs } = statSync(this.#file);
      const stamp = `${ino} ${size} ${mtimeMs}`;
      if (stamp === this.#stamp || size > MAX_PASSWD_BYTES) return false;
      this.#read(readFileSync(this.#file, 'utf8'));
      this.#stamp = stamp;
      return true;
    } catch {
      return false;
    }
  }

  /** The number of a user by name; undefined when the file does not know it. */
  uidOf(name: string): number | undefined {
    return this.#uids.get(name);
  }

  /** The first name of a number, as getpwuid(3) finds it. */
  nameOf(uid: number): string | undefined {
    return this.#names.get(uid);
  }

  #read(text: string): void {
    this.#uids.clear();
    this.#names.clear();
    for (const line of text.split('\n')) {
      const [name = '', , uid = ''] = line.split(':', 3);
      if (name === '' || !/^\d{1,10}$/.test(uid)) continue;
      const number = Number(uid);
      if (!this.#uids.has(name)) this.#uids.set(name, number);
      if (!this.#names.has(number)) this.#names.set(number, name);
    }
  }
}
