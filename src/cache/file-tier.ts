import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { reasonOf } from '../model/errors.ts';
import { decodeFile, FileEncoder } from './file-format.ts';

/** A file that is larger is not read; 100,000 instances are about 20 MiB. */
const MAX_FILE_BYTES = 1024 * 1024 * 1024;
/** Damaged files that are kept for whoever wants to know; older ones are removed. */
const MAX_DAMAGED_KEPT = 3;
/** After a failed write (a full disk) it is tried again this much later, also without a change. */
const RETRY_MS = 10_000;
/** Encoding yields to other work after this long. */
const SLICE_MS = 5;
/** Pause between writes, in multiples of what the last one cost: at most a tenth of the time goes into writing. */
const DUTY = 10;

/** The part of a logger that caches use. */
interface CacheLog {
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
}

interface FileTierOptions<T> {
  /** Absolute path of the file. */
  readonly path: string;
  /** Changes within this time are written together, milliseconds. */
  readonly writeDelay: number;
  /** The content is not trusted: each record counts only as what this makes of it; undefined refuses it. */
  readonly check: (record: unknown) => T | undefined;
  readonly log: CacheLog;
}

interface FileTierStatus {
  readonly path: string;
  /** Milliseconds since the epoch; undefined before the first write of this process. */
  readonly writtenAt: number | undefined;
  /** Size of the last write. */
  readonly bytes: number;
  readonly writes: number;
  readonly failedWrites: number;
  /** Why the last write failed; undefined when it did not. */
  readonly lastError: string | undefined;
  /** Files set aside by this process. */
  readonly damaged: number;
  /** Records of the loaded file that were refused. */
  readonly refused: number;
}

/**
 * Records on disk: versioned, checksummed, replaced atomically (mode 0600). Nothing here throws into the caller: what
 * goes wrong is logged and counted, memory goes on, and the file that was there stays.
 */
export class FileTier<T> {
  readonly #options: FileTierOptions<T>;
  #records: (() => Iterable<T>) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  #lastCost = 0;
  #writtenAt: number | undefined;
  #bytes = 0;
  #writes = 0;
  #failedWrites = 0;
  #lastError: string | undefined;
  #damaged = 0;
  #refused = 0;

  constructor(options: FileTierOptions<T>) {
    this.#options = options;
  }

  get status(): FileTierStatus {
    return {
      path: this.#options.path,
      writtenAt: this.#writtenAt,
      bytes: this.#bytes,
      writes: this.#writes,
      failedWrites: this.#failedWrites,
      lastError: this.#lastError,
      damaged: this.#damaged,
      refused: this.#refused,
    };
  }

  /** What was written last and can be believed; empty when there is no such file. A damaged one is set aside. */
  async load(): Promise<{ readonly records: readonly T[]; readonly writtenAt: number | undefined }> {
    const { path, check, log } = this.#options;
    const nothing = { records: [], writtenAt: undefined };
    let bytes: Buffer;
    try {
      await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const about = await file.stat();
      if (!about.isFile()) throw new Error('not a regular file');
      if (about.size > MAX_FILE_BYTES) throw new Error(`larger than ${MAX_FILE_BYTES} bytes`);
      bytes = await file.readFile();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        log.warn({ path, reason: reasonOf(error) }, 'cache file cannot be read; going on without it');
      }
      return nothing;
    }
    const decoded = decodeFile(bytes);
    if (typeof decoded === 'string') {
      await this.#setAside(decoded);
      return nothing;
    }
    const records: T[] = [];
    let sliceEnd = performance.now() + SLICE_MS;
    for (const record of decoded.records) {
      const checked = record === undefined ? undefined : check(record);
      if (checked === undefined) this.#refused++;
      else records.push(checked);
      if (performance.now() > sliceEnd) {
        await nextTurn();
        sliceEnd = performance.now() + SLICE_MS;
      }
    }
    if (this.#refused > 0)
      log.warn({ path, refused: this.#refused }, 'cache file has records that are refused');
    return { records, writtenAt: decoded.writtenAt };
  }

  /** Something changed: `records` is asked for everything when it is time to write. */
  changed(records: () => Iterable<T>): void {
    this.#records = records;
    this.#schedule(Math.max(this.#options.writeDelay, this.#lastCost * DUTY));
  }

  /** Writes what is waiting to be written, now. For a clean stop. */
  async flush(): Promise<void> {
    await this.#writing;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#records !== undefined) await this.#write();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(delay: number): void {
    if (this.#timer !== undefined || this.#writing !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#write();
    }, delay);
    this.#timer.unref();
  }

  #write(): Promise<void> {
    // Not begun before `#writing` is set: whoever announces a change meanwhile must not begin a second write.
    const begun = Promise.resolve().then(() => this.#writeOnce());
    this.#writing = begun.finally(() => {
      this.#writing = undefined;
      if (this.#records === undefined) return;
      this.#schedule(
        this.#lastError === undefined ? Math.max(this.#options.writeDelay, this.#lastCost * DUTY) : RETRY_MS,
      );
    });
    return this.#writing;
  }

  async #writeOnce(): Promise<void> {
    const { path, log } = this.#options;
    const source = this.#records;
    if (source === undefined) return;
    this.#records = undefined;
    const started = performance.now();
    try {
      const encoder = new FileEncoder();
      let sliceEnd = started + SLICE_MS;
      // The list is taken in one go, its values never change: what is written is one moment's truth.
      for (const record of Array.from(source())) {
        encoder.add(record);
        if (performance.now() > sliceEnd) {
          await nextTurn();
          sliceEnd = performance.now() + SLICE_MS;
        }
      }
      const { parts, bytes } = encoder.finish(Date.now());
      await replaceFile(path, parts);
      this.#bytes = bytes;
      this.#writes++;
      this.#writtenAt = Date.now();
      if (this.#lastError !== undefined) log.info({ path }, 'cache file is written again');
      this.#lastError = undefined;
    } catch (error) {
      this.#failedWrites++;
      const reason = reasonOf(error);
      if (this.#lastError !== reason)
        log.warn({ path, reason }, 'cache file cannot be written; the old one stays');
      this.#lastError = reason;
      this.#records ??= source;
    }
    this.#lastCost = performance.now() - started;
  }

  async #setAside(reason: string): Promise<void> {
    const { path, log } = this.#options;
    this.#damaged++;
    const aside = `${path}.damaged-${Date.now()}`;
    try {
      await rename(path, aside);
      log.warn({ path, aside, reason }, 'cache file is damaged; set aside');
      const prefix = `${basename(path)}.damaged-`;
      const kept = (await readdir(dirname(path))).filter((name) => name.startsWith(prefix)).sort();
      for (const name of kept.slice(0, -MAX_DAMAGED_KEPT)) await rm(join(dirname(path), name));
    } catch (error) {
      log.warn({ path, reason, failure: reasonOf(error) }, 'cache file is damaged and cannot be set aside');
    }
  }
}

/** Puts new content in place of a file so that a crash at any moment leaves the old or the new one. */
async function replaceFile(path: string, parts: readonly Buffer[]): Promise<void> {
  const fresh = `${path}.new`;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    // A leftover of a crash, or whatever somebody put there, is not written through.
    await rm(fresh, { force: true });
    await using file = await open(fresh, 'wx', 0o600);
    await writeAll(file, parts);
    await file.sync();
    await rename(fresh, path);
  } catch (error) {
    await rm(fresh, { force: true }).catch(() => undefined);
    throw error;
  }
  await using directory = await open(dirname(path), 'r');
  await directory.sync();
}

/** Bytes handed to the kernel in one call. */
const WRITE_BYTES = 1024 * 1024;

async function writeAll(file: FileHandle, parts: readonly Buffer[]): Promise<void> {
  let batch: Buffer[] = [];
  let bytes = 0;
  for (const part of parts) {
    batch.push(part);
    bytes += part.length;
    if (bytes < WRITE_BYTES) continue;
    await file.writeFile(Buffer.concat(batch, bytes));
    batch = [];
    bytes = 0;
  }
  if (bytes > 0) await file.writeFile(Buffer.concat(batch, bytes));
}
