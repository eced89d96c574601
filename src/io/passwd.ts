import { readFileSync, type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { readBounded } from './read-bounded.ts';

/** Most bytes that are read: some hundred thousand users. */
const MAX_PASSWD_BYTES = 16 * 1024 * 1024;

/** A line of passwd(5). */
interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** The users in the text of a file, in its order; lines of another form are left out. */
export function* passwdEntries(text: string): IterableIterator<PasswdEntry> {
  for (const line of text.split('\n')) {
    const [name = '', , uid = '', gid = ''] = line.split(':', 4);
    if (name !== '' && isId(uid) && isId(gid)) yield { name, uid: Number(uid), gid: Number(gid) };
  }
}

function isId(text: string): boolean {
  return /^\d{1,10}$/.test(text);
}

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
      const status = statSync(this.#file);
      return this.#isOther(status) && this.#take(readFileSync(this.#file, 'utf8'), status);
    } catch {
      return false;
    }
  }

  /** The same, without waiting for the disk. Never throws. */
  async look(): Promise<boolean> {
    const status = await stat(this.#file).catch(() => undefined);
    if (status === undefined || !this.#isOther(status)) return false;
    const text = await readBounded(this.#file, MAX_PASSWD_BYTES);
    return text !== undefined && this.#take(text, status);
  }

  /** The number of a user by name; undefined when the file does not know it. */
  uidOf(name: string): number | undefined {
    return this.#uids.get(name);
  }

  /** The first name of a number, as getpwuid(3) finds it. */
  nameOf(uid: number): string | undefined {
    return this.#names.get(uid);
  }

  #isOther(status: Stats): boolean {
    return stampOf(status) !== this.#stamp && status.size <= MAX_PASSWD_BYTES;
  }

  #take(text: string, status: Stats): boolean {
    this.#stamp = stampOf(status);
    this.#uids.clear();
    this.#names.clear();
    for (const { name, uid } of passwdEntries(text)) {
      if (!this.#uids.has(name)) this.#uids.set(name, uid);
      if (!this.#names.has(uid)) this.#names.set(uid, name);
    }
    return true;
  }
}

function stampOf({ ino, size, mtimeMs }: Stats): string {
  return `${ino} ${size} ${mtimeMs}`;
}
