import { once } from 'node:events';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { entryFile, PROGRAM_DIRECTORY } from '../io/installation.ts';
import type { PolicyFile, PolicyReading } from './reading.ts';

/** Makes a set of the files of a directory, whatever is in them. */
export interface PolicyReader {
  /** Never rejects: what cannot be read is a problem. */
  read(files: readonly PolicyFile[]): Promise<PolicyReading>;
  /** Ends what the reader holds; a later `read` begins anew. */
  close(): Promise<void>;
}

/** Bounds on what all files together may cost. */
const DEFAULT_BOUNDS = Object.freeze({
  /** MiB of heap that the thread may have; 4 MiB of valid documents need 600. */
  heapMiB: 1024,
  /** Milliseconds from the bytes to the set. */
  deadline: 20_000,
  /** The thread ends, and its memory is given back, this many milliseconds after its last work. */
  idle: 2000,
});

type Bounds = Readonly<Record<keyof typeof DEFAULT_BOUNDS, number>>;

/** What reader-thread-main.ts is built to. */
const PROGRAM = pathToFileURL(join(PROGRAM_DIRECTORY, entryFile('policy/reader-thread-main')));

interface ThreadedReaderOptions {
  readonly program?: URL;
  readonly bounds?: Partial<Bounds>;
}

/** Reads in a thread, so that no content can stall or grow the process: what passes a bound costs the thread. */
export class ThreadedReader implements PolicyReader {
  readonly #program: URL;
  readonly #bounds: Bounds;
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor({ program = PROGRAM, bounds = {} }: ThreadedReaderOptions = {}) {
    this.#program = program;
    this.#bounds = { ...DEFAULT_BOUNDS, ...bounds };
  }

  /** True while there is a thread. */
  get running(): boolean {
    return this.#worker !== undefined;
  }

  async read(files: readonly PolicyFile[]): Promise<PolicyReading> {
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const { deadline, heapMiB, idle } = this.#bounds;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), deadline);
    try {
      return await ask(worker, files, late.signal);
    } catch (error) {
      if (this.#worker === worker) await this.close();
      const { code, message } = error as NodeJS.ErrnoException;
      let found = message;
      if (code === 'ERR_WORKER_OUT_OF_MEMORY') found = `content that needs more than ${heapMiB} MiB to read`;
      if (late.signal.aborted) found = `content that takes longer than ${deadline} ms to read`;
      const [first] = files;
      return { problems: [{ origin: first?.path ?? '', path: '', found, expected: 'less' }] };
    } finally {
      clearTimeout(timer);
      this.#idle = setTimeout(() => void this.close(), idle).unref();
    }
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(this.#program, {
      name: 'policies',
      resourceLimits: { maxOldGenerationSizeMb: this.#bounds.heapMiB },
    });
    // A thread that fails while nothing is asked of it is found ended by the next question.
    worker.on('error', () => {});
    worker.unref();
    worker.once('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
    });
    return worker;
  }
}

/** One question and its answer; rejects when the thread fails or ends, or the signal comes first. */
async function ask(
  worker: Worker,
  files: readonly PolicyFile[],
  signal: AbortSignal,
): Promise<PolicyReading> {
  const done = new AbortController();
  const end = AbortSignal.any([signal, done.signal]);
  try {
    const answer = once(worker, 'message', { signal: end });
    const exit = once(worker, 'exit', { signal: end }).then(() => {
      throw new Error('a thread that ended');
    });
    worker.postMessage(files);
    const [value] = await Promise.race([answer, exit]);
    return value as PolicyReading;
  } finally {
    done.abort();
  }
}
