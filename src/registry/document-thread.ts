import { once } from 'node:events';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { entryFile, PROGRAM_DIRECTORY } from '../io/installation.ts';
import { type CatalogueDocument, DocumentError } from './document.ts';
import type { Answer, Request } from './document-pieces.ts';
import type { DocumentReader } from './document-reader.ts';

/** Bounds on what one file may cost, whatever is in it. */
const DEFAULT_BOUNDS = Object.freeze({
  /** MiB of heap that the thread may have; a valid file of the largest size needs 530. */
  heapMiB: 768,
  /** Milliseconds for one file, from its bytes to its last piece; the largest takes 5 s of CPU. */
  deadline: 20_000,
  /** The thread ends, and its memory is given back, this many milliseconds after its last file. */
  idle: 2000,
});

type Bounds = Readonly<Record<keyof typeof DEFAULT_BOUNDS, number>>;

/** What document-thread-main.ts is built to. */
const PROGRAM = pathToFileURL(join(PROGRAM_DIRECTORY, entryFile('registry/document-thread-main')));

interface DocumentThreadOptions {
  readonly program?: URL;
  readonly bounds?: Partial<Bounds>;
}

/**
 * Reads files in a thread, so that no content can stall or grow the process beyond its bounds: a file that passes one
 * costs the thread, and the next file gets a new one. Documents come back in pieces, a turn of the event loop each.
 */
export class DocumentThread implements DocumentReader {
  readonly #program: URL;
  readonly #bounds: Bounds;
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor({ program = PROGRAM, bounds = {} }: DocumentThreadOptions = {}) {
    this.#program = program;
    this.#bounds = { ...DEFAULT_BOUNDS, ...bounds };
  }

  /** True while there is a thread. */
  get running(): boolean {
    return this.#worker !== undefined;
  }

  async read(bytes: Uint8Array<ArrayBuffer>): Promise<CatalogueDocument> {
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const { deadline, heapMiB, idle } = this.#bounds;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), deadline);
    const document: CatalogueDocument = { services: [], nodes: [] };
    try {
      for (let request: Request = { bytes }; ; request = 'next') {
        const answer = await ask(worker, request, late.signal);
        if ('mistakes' in answer) throw new DocumentError(answer.mistakes);
        for (const service of answer.piece.services) document.services.push(service);
        for (const node of answer.piece.nodes) document.nodes.push(node);
        if (answer.last) break;
        await turn();
      }
      return document;
    } catch (error) {
      if (error instanceof DocumentError) throw error;
      if (this.#worker === worker) await this.close();
      const { code, message } = error as NodeJS.ErrnoException;
      let why = message;
      if (code === 'ERR_WORKER_OUT_OF_MEMORY')
        why = `found content that needs more than ${heapMiB} MiB to read`;
      if (late.signal.aborted) why = `found content that takes longer than ${deadline} ms to read`;
      throw new DocumentError([`1:1: ${why}`]);
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
      name: 'catalogue-files',
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
async function ask(worker: Worker, request: Request, signal: AbortSignal): Promise<Answer> {
  const done = new AbortController();
  const end = AbortSignal.any([signal, done.signal]);
  try {
    const answer = once(worker, 'message', { signal: end });
    const exit = once(worker, 'exit', { signal: end }).then(() => {
      throw new Error('the thread that reads files ended');
    });
    worker.postMessage(request, request === 'next' ? [] : [request.bytes.buffer]);
    const [value] = await Promise.race([answer, exit]);
    return value as Answer;
  } finally {
    done.abort();
  }
}
