import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

/** What work in a thread may cost, whatever it is given. */
export interface ThreadBounds {
  /** MiB of heap that the thread may have. */
  readonly heapMiB: number;
  /** Milliseconds for one piece of work. */
  readonly deadline: number;
  /** The thread ends, and its memory is given back, this many milliseconds after its last work. */
  readonly idle: number;
}

/** One question to the thread and its answer; rejects with a {@link ThreadFailure}. */
export type Ask<Question, Answer> = (
  question: Question,
  transfer?: readonly ArrayBuffer[],
) => Promise<Answer>;

/** The thread did not do it; `message` says why, as what was found: `content that needs more than …`. */
export class ThreadFailure extends Error {
  override readonly name = 'ThreadFailure';
}

/**
 * A thread for work that depends on what others wrote, so that it can neither stall nor grow this process: what passes a
 * bound costs the thread, and the next work gets a new one. One piece of work at a time.
 */
export class BoundedThread<Question, Answer> {
  readonly #program: URL;
  readonly #name: string;
  readonly #bounds: ThreadBounds;
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;

  /** `program` answers each message with one. */
  constructor(program: URL, name: string, bounds: ThreadBounds) {
    this.#program = program;
    this.#name = name;
    this.#bounds = bounds;
  }

  /** True while there is a thread. */
  get running(): boolean {
    return this.#worker !== undefined;
  }

  /** Does one piece of work, in any number of questions, within the bounds. */
  async use<T>(work: (ask: Ask<Question, Answer>) => Promise<T>): Promise<T> {
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const { deadline, idle } = this.#bounds;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), deadline);
    try {
      return await work((question, transfer = []) => this.#ask(worker, question, transfer, late.signal));
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

  async #ask(
    worker: Worker,
    question: Question,
    transfer: readonly ArrayBuffer[],
    late: AbortSignal,
  ): Promise<Answer> {
    try {
      return await answerOf<Answer>(worker, () => worker.postMessage(question, [...transfer]), late);
    } catch (error) {
      if (this.#worker === worker) await this.close();
      const { heapMiB, deadline } = this.#bounds;
      const { code, message } = error as NodeJS.ErrnoException;
      let why = message;
      if (code === 'ERR_WORKER_OUT_OF_MEMORY') why = `content that needs more than ${heapMiB} MiB to read`;
      if (late.aborted) why = `content that takes longer than ${deadline} ms to read`;
      throw new ThreadFailure(why, { cause: error });
    }
  }

  #start(): Worker {
    const worker = new Worker(this.#program, {
      name: this.#name,
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

/** Rejects when the thread fails or ends, or the signal comes first. */
async function answerOf<Answer>(worker: Worker, ask: () => void, signal: AbortSignal): Promise<Answer> {
  const done = new AbortController();
  const end = AbortSignal.any([signal, done.signal]);
  try {
    const answer = once(worker, 'message', { signal: end });
    const exit = once(worker, 'exit', { signal: end }).then(() => {
      throw new Error('a thread that ended');
    });
    ask();
    const [value] = await Promise.race([answer, exit]);
    return value as Answer;
  } finally {
    done.abort();
  }
}
