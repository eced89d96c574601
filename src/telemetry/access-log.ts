import { close, open, write } from 'node:fs';
import type { ConnectionRecord } from '../model/connection.ts';
import type { RequestRecord } from '../model/request.ts';
import { accessLogLine } from './access-log-line.ts';
import { requestLogLine } from './request-log-line.ts';

/**
 * Most bytes of one write to stdout: PIPE_BUF. The workers share one pipe or journal socket, and only writes up to
 * this size never mix with each other's. No line is longer.
 */
const STDOUT_BATCH = 4096;
/** Most bytes of one write to a file; appends to a file never mix. */
const FILE_BATCH = 64 * 1024;
/** Lines wait this long for company, so that many connections share a write. */
const GATHER_MS = 20;
/** Pause after a write that the reader of a pipe had no room for, or a disk no space. */
const RETRY_MS = 100;
/** How long `close` waits for the last lines. */
const CLOSE_MS = 2000;

const LINE_END = 10;

/** Lines on their way, and how much of the buffer they take. */
interface Batch {
  readonly bytes: Buffer;
  readonly size: number;
}

/** Where the lines go, and how many bytes may wait. */
export interface AccessLogOptions {
  /** `stdout`, `off` or an absolute path, as in `telemetry.accessLog`. */
  readonly target: string;
  /** `telemetry.accessLogBuffer`. */
  readonly bufferBytes: number;
  /** Told of the first failure of several in a row. */
  readonly onFailure?: (reason: string) => void;
  /** Told how many lines were lost. */
  readonly onDropped?: (lines: number) => void;
}

/**
 * Writes one JSON line for each connection, and for each request of HTTP, at its end. Never blocks and never throws: lines wait in memory up to a
 * bound, one write is under way at a time (in libuv's pool, so a stopped reader holds one thread and not the loop),
 * and what does not fit is dropped and counted.
 */
export class AccessLog {
  readonly #options: AccessLogOptions;
  readonly #batch: number;
  #descriptor: number | undefined;
  #lines: string[] = [];
  /** Lines before this index are written. */
  #next = 0;
  #waitingBytes = 0;
  #busy = false;
  #timer: NodeJS.Timeout | undefined;
  #failing = false;
  #reopen = false;
  #dropped = 0;
  /** The file ends in the middle of a line, because a disk was full: the next batch begins on a new one. */
  #torn = false;
  #closed = false;
  #idle: (() => void)[] = [];

  constructor(options: AccessLogOptions) {
    this.#options = options;
    this.#batch = options.target === 'stdout' ? STDOUT_BATCH : FILE_BATCH;
    if (options.target === 'stdout') this.#descriptor = 1;
  }

  /** Lines lost so far. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Takes the record of a connection that ended. */
  write(record: ConnectionRecord): void {
    if (this.#writes) this.#take(accessLogLine(record));
  }

  /** Takes the record of a request that ended. */
  writeRequest(record: RequestRecord): void {
    if (this.#writes) this.#take(requestLogLine(record));
  }

  get #writes(): boolean {
    return this.#options.target !== 'off' && !this.#closed;
  }

  #take(line: string): void {
    if (this.#waitingBytes + line.length > this.#options.bufferBytes) {
      this.#drop(1);
      return;
    }
    this.#lines.push(line);
    this.#waitingBytes += line.length;
    if (!this.#busy && this.#timer === undefined) this.#schedule(GATHER_MS);
  }

  /** Opens the file anew, after a rotation moved it away. Lines on their way still go to the old one. */
  reopen(): void {
    if (this.#options.target === 'stdout' || this.#options.target === 'off') return;
    this.#reopen = true;
    if (!this.#busy) this.#flush();
  }

  /** Writes what waits, within 2 s, and closes the file. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#lines.length > this.#next || this.#busy) {
      if (!this.#busy) this.#flush();
      await new Promise<void>((resolve) => {
        const deadline = setTimeout(resolve, CLOSE_MS);
        this.#idle.push(() => {
          clearTimeout(deadline);
          resolve();
        });
      });
    }
    clearTimeout(this.#timer);
    if (this.#descriptor !== undefined && this.#descriptor !== 1 && !this.#busy)
      close(this.#descriptor, () => {});
    this.#descriptor = undefined;
  }

  #schedule(delay: number): void {
    this.#timer = setTimeout(() => this.#flush(), delay);
    this.#timer.unref();
  }

  /** Starts the next step: open, or write a batch. Called only when none is under way. */
  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#reopen || this.#descriptor === undefined) {
      this.#openFile();
      return;
    }
    const batch = this.#takeBatch();
    if (batch === undefined) {
      this.#settle();
      return;
    }
    this.#busy = true;
    this.#writeAll(this.#descriptor, batch, 0);
  }

  #takeBatch(): Batch | undefined {
    const first = this.#next;
    let size = 0;
    while (this.#next < this.#lines.length) {
      const { length } = this.#lines[this.#next]!;
      if (size > 0 && size + length > this.#batch) break;
      size += length;
      this.#next++;
    }
    if (size === 0) return undefined;
    const text = this.#lines.slice(first, this.#next).join('');
    const bytes = Buffer.from(this.#torn ? `\n${text}` : text, 'latin1');
    if (this.#next === this.#lines.length) {
      this.#lines = [];
      this.#next = 0;
    } else if (this.#next >= 4096) {
      this.#lines = this.#lines.slice(this.#next);
      this.#next = 0;
    }
    return { bytes, size };
  }

  #writeAll(descriptor: number, batch: Batch, from: number): void {
    const { bytes, size } = batch;
    write(descriptor, bytes, from, bytes.length - from, null, (error, written) => {
      if (error === null) {
        this.#failing = false;
        const at = from + written;
        if (at < bytes.length) {
          this.#writeAll(descriptor, batch, at);
          return;
        }
        this.#torn = false;
        this.#done(size);
        return;
      }
      if (error.code === 'EAGAIN' && !this.#closed) {
        // A full pipe: its reader is slow. The batch waits; what comes meanwhile fills the buffer, then is dropped.
        const retry = setTimeout(() => this.#writeAll(descriptor, batch, from), RETRY_MS);
        retry.unref();
        return;
      }
      this.#fail(`cannot write the access log: ${error.message}`);
      // The end of the torn line was counted as lost with it.
      this.#drop(countLineEnds(bytes, this.#torn ? Math.max(1, from) : from));
      if (from > 0) this.#torn = bytes[from - 1] !== LINE_END;
      this.#done(size, RETRY_MS);
    });
  }

  #done(bytes: number, pause = 0): void {
    this.#busy = false;
    this.#waitingBytes -= bytes;
    if (pause > 0 && !this.#closed) this.#schedule(pause);
    else if (this.#reopen || this.#next < this.#lines.length) this.#flush();
    else this.#settle();
  }

  #openFile(): void {
    this.#busy = true;
    this.#reopen = false;
    open(this.#options.target, 'a', 0o640, (error, descriptor) => {
      this.#busy = false;
      if (error === null) {
        this.#failing = false;
        if (this.#descriptor !== undefined) close(this.#descriptor, () => {});
        this.#descriptor = descriptor;
        this.#flush();
        return;
      }
      this.#fail(`cannot open the access log: ${error.message}`);
      if (this.#descriptor !== undefined) this.#flush();
      else if (!this.#closed) this.#schedule(RETRY_MS);
      else {
        this.#drop(this.#lines.length - this.#next);
        this.#lines = [];
        this.#next = 0;
        this.#settle();
      }
    });
  }

  #settle(): void {
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #fail(reason: string): void {
    if (!this.#failing) this.#options.onFailure?.(reason);
    this.#failing = true;
  }

  #drop(lines: number): void {
    this.#dropped += lines;
    this.#options.onDropped?.(lines);
  }
}

function countLineEnds(bytes: Buffer, from: number): number {
  let count = 0;
  for (let at = bytes.indexOf(LINE_END, from); at >= 0; at = bytes.indexOf(LINE_END, at + 1)) count++;
  return count;
}
