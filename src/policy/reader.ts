import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BoundedThread, type ThreadBounds } from '../io/bounded-thread.ts';
import { entryFile, PROGRAM_DIRECTORY } from '../io/installation.ts';
import { reasonOf } from '../model/errors.ts';
import type { PolicyFile, PolicyReading } from './reading.ts';

/** Makes a set of the files of a directory, whatever is in them. */
export interface PolicyReader {
  /** Never rejects: what cannot be read is a problem. */
  read(files: readonly PolicyFile[]): Promise<PolicyReading>;
  /** Ends what the reader holds; a later `read` begins anew. */
  close(): Promise<void>;
}

/** For all files together; 4 MiB of valid documents need 600 MiB of heap. */
const DEFAULT_BOUNDS: ThreadBounds = Object.freeze({ heapMiB: 1024, deadline: 20_000, idle: 2000 });

/** What reader-thread-main.ts is built to. */
const PROGRAM = pathToFileURL(join(PROGRAM_DIRECTORY, entryFile('policy/reader-thread-main')));

interface ThreadedReaderOptions {
  readonly program?: URL;
  readonly bounds?: Partial<ThreadBounds>;
}

/** Reads in a thread, so that no content can stall or grow the process. */
export class ThreadedReader implements PolicyReader {
  readonly #thread: BoundedThread<readonly PolicyFile[], PolicyReading>;

  constructor({ program = PROGRAM, bounds = {} }: ThreadedReaderOptions = {}) {
    this.#thread = new BoundedThread(program, 'policies', { ...DEFAULT_BOUNDS, ...bounds });
  }

  /** True while there is a thread. */
  get running(): boolean {
    return this.#thread.running;
  }

  async read(files: readonly PolicyFile[]): Promise<PolicyReading> {
    try {
      return await this.#thread.use((ask) => ask(files));
    } catch (error) {
      const origin = files[0]?.path ?? '';
      return { problems: [{ origin, path: '', found: reasonOf(error), expected: 'less' }], unread: true };
    }
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
