import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { BoundedThread, type ThreadBounds, ThreadFailure } from '../io/bounded-thread.ts';
import { entryFile, PROGRAM_DIRECTORY } from '../io/installation.ts';
import { type CatalogueDocument, DocumentError } from './document.ts';
import type { Answer, Request } from './document-pieces.ts';
import type { DocumentReader } from './document-reader.ts';

/** For one file: the largest valid one needs 530 MiB of heap, and 5 s of CPU from its bytes to its last piece. */
const DEFAULT_BOUNDS: ThreadBounds = Object.freeze({ heapMiB: 768, deadline: 20_000, idle: 2000 });

/** What document-thread-main.ts is built to. */
const PROGRAM = pathToFileURL(join(PROGRAM_DIRECTORY, entryFile('registry/document-thread-main')));

interface DocumentThreadOptions {
  readonly program?: URL;
  readonly bounds?: Partial<ThreadBounds>;
}

/**
 * Reads files in a thread, so that no content can stall or grow the process beyond its bounds: a file that passes one
 * costs the thread, and the next file gets a new one. Documents come back in pieces, a turn of the event loop each.
 */
export class DocumentThread implements DocumentReader {
  readonly #thread: BoundedThread<Request, Answer>;

  constructor({ program = PROGRAM, bounds = {} }: DocumentThreadOptions = {}) {
    this.#thread = new BoundedThread(program, 'catalogue-files', { ...DEFAULT_BOUNDS, ...bounds });
  }

  /** True while there is a thread. */
  get running(): boolean {
    return this.#thread.running;
  }

  async read(bytes: Uint8Array<ArrayBuffer>): Promise<CatalogueDocument> {
    const document: CatalogueDocument = { services: [], nodes: [] };
    try {
      return await this.#thread.use(async (ask) => {
        let answer = await ask({ bytes }, [bytes.buffer]);
        for (;;) {
          if ('mistakes' in answer) throw new DocumentError(answer.mistakes);
          for (const service of answer.piece.services) document.services.push(service);
          for (const node of answer.piece.nodes) document.nodes.push(node);
          if (answer.last) return document;
          await turn();
          answer = await ask('next');
        }
      });
    } catch (error) {
      if (error instanceof ThreadFailure) throw new DocumentError([`1:1: found ${error.message}`]);
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
