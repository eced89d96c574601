import { constants, type FSWatcher, type Stats, watch } from 'node:fs';
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Settling } from '../io/settling.ts';
import { reasonOf } from '../model/errors.ts';
import { type Composed, Composer, nothingComposed, updatesBetween } from './composition.ts';
import { type CatalogueDocument, DocumentError } from './document.ts';
import { type DocumentReader, MAX_FILE_BYTES } from './document-reader.ts';
import { DocumentThread } from './document-thread.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';

/** Changes that come within this time are read together; editors write a file in several steps. */
const DEBOUNCE_MS = 50;
/** A change is read at the latest after this time, however many follow it. */
const LATEST_MS = 250;
/** Watches miss things (network file systems, a directory that is mounted over): the directory is compared this often. */
const RESCAN_MS = 2000;
/** Files of one directory; further ones, by name, are not read and reported. */
const MAX_FILES = 10_000;
const IS_DOCUMENT = /^[^.].*\.ya?ml$/;

interface KnownFile {
  /** Device, inode, size and times: another one means that the file has to be read again. */
  readonly fingerprint: string;
  /** The last good content; undefined when there never was any. */
  readonly document: CatalogueDocument | undefined;
  readonly mistakes: readonly string[];
}

interface FileSourceOptions {
  /** Absolute path of the directory. */
  readonly directory: string;
  readonly context: SourceContext;
  /** Reads the files' content; default a thread, so that no content can stall this process. */
  readonly reader?: DocumentReader;
}

/**
 * The `file` registry: a directory of YAML files. A deleted file removes its services; a directory that cannot be
 * read, or that is empty where it never was (what an unmounted one looks like), removes nothing; a broken file keeps
 * its last good content. Format: docs/registries.md.
 */
export class FileSource implements Source {
  readonly name: string;
  readonly #directory: string;
  readonly #state: SourceStateMachine;
  #files: ReadonlyMap<string, KnownFile> = new Map();
  /** Device and inode of the directory that was last read with success. */
  #identity: string | undefined;
  readonly #reader: DocumentReader;
  readonly #composer: Composer;
  readonly #changes = new Settling(DEBOUNCE_MS, LATEST_MS, () => this.#look());
  /** What was told last. */
  #composed: Composed = nothingComposed;
  /** A full update was told, with every file's content in it. */
  #complete = false;
  #listener: SourceListener | undefined;
  #watcher: FSWatcher | undefined;
  #watched: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #scan: Promise<void> | undefined;
  /** Something changed while the directory was read. */
  #again = false;

  constructor(options: FileSourceOptions) {
    this.#directory = options.directory;
    this.name = `file:${options.directory}`;
    this.#state = new SourceStateMachine(this.name, options.context.log);
    this.#reader = options.reader ?? new DocumentThread();
    this.#composer = new Composer(options.context);
  }

  get status(): SourceStatus {
    return this.#state.status;
  }

  start(listener: SourceListener): void {
    this.#listener = listener;
    this.#state.listen(listener);
    this.#look();
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
    this.#state.listen(undefined);
    clearTimeout(this.#timer);
    this.#changes.clear();
    this.#watcher?.close();
    this.#watcher = undefined;
    await this.#reader.close();
    await this.#scan;
    await this.#reader.close();
  }

  /** Reads the directory; never while it is being read. */
  #look(): void {
    if (this.#listener === undefined) return;
    clearTimeout(this.#timer);
    this.#changes.clear();
    this.#scan = this.#readDirectory()
      .catch((error: unknown) => {
        if (this.#listener !== undefined) this.#state.unreachable(reasonOf(error));
      })
      .then(() => {
        this.#scan = undefined;
        if (this.#listener === undefined) return;
        if (this.#again) this.#changes.touch();
        else this.#timer = setTimeout(() => this.#look(), RESCAN_MS);
        this.#again = false;
      });
  }

  async #readDirectory(): Promise<void> {
    const about = await stat(this.#directory);
    const identity = `${about.dev}:${about.ino}`;
    // Watched before it is listed: what changes in between is then noticed.
    this.#watch(identity);
    const names = (await readdir(this.#directory)).filter((name) => IS_DOCUMENT.test(name)).sort();
    if (names.length === 0 && identity !== this.#identity) {
      // An empty directory that was never seen with content is what an unmounted one looks like.
      throw new Error(
        'the directory has no *.yaml file; is it mounted? (a file with `services: []` says that nothing is registered)',
      );
    }
    const files = new Map<string, KnownFile>();
    for (const name of names.slice(0, MAX_FILES)) {
      if (this.#listener === undefined) return;
      const file = await this.#readFile(join(this.#directory, name), this.#files.get(name));
      if (file !== undefined) files.set(name, file);
    }
    // Files that vanish one after the other while the whole directory goes away are not facts.
    const after = await stat(this.#directory);
    if (`${after.dev}:${after.ino}` !== identity)
      throw new Error('the directory was replaced while it was read');
    if (this.#listener === undefined) return;

    const left = names.length - MAX_FILES;
    const beyond = left > 0 ? [`${left} files beyond ${MAX_FILES} are not read`] : [];
    await this.#tell(files);
    if (this.#listener === undefined) return;
    this.#files = files;
    this.#identity = identity;
    const mistakes = [...files].flatMap(([name, file]) =>
      file.mistakes.map((mistake) => `${name}:${mistake}`),
    );
    this.#state.confirmed([...mistakes, ...this.#composed.problems, ...beyond]);
  }

  /** Tells what is different now, in pieces; the whole when what else is known of this source has to go. */
  async #tell(files: ReadonlyMap<string, KnownFile>): Promise<void> {
    const documents = new Map<string, CatalogueDocument>();
    for (const [name, { document }] of files) if (document !== undefined) documents.set(name, document);
    const complete = documents.size === files.size;
    const whole = this.#identity === undefined || complete !== this.#complete;
    if (!whole && sameDocuments(files, this.#files)) return;
    const before = this.#composed;
    const composed = await this.#composer.compose(documents);
    for await (const update of updatesBetween(before, composed)) this.#listener?.update(update);
    this.#composed = composed;
    if (!whole && !before.beyond && !composed.beyond) return;
    // Everything in it is told already and the same object: this costs one comparison for each service.
    const services = [...composed.services.values()];
    this.#listener?.update({ kind: 'full', services, nodes: [...composed.nodes.values()], complete });
    this.#complete = complete;
  }

  /** Reads a file unless it is what it was; undefined when it is gone. */
  async #readFile(path: string, before: KnownFile | undefined): Promise<KnownFile | undefined> {
    let fingerprint = 'unreadable';
    try {
      fingerprint = fingerprintOf(await stat(path));
      if (before?.fingerprint === fingerprint) return before;
      // Without waiting: to open a FIFO would take until somebody writes to it.
      await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const about = await file.stat();
      fingerprint = fingerprintOf(about);
      if (!about.isFile()) throw new DocumentError(['1:1: found no regular file']);
      const document = await this.#reader.read(await readAll(file, about.size));
      return { fingerprint, document, mistakes: [] };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      const mistakes = error instanceof DocumentError ? error.mistakes : [`1:1: ${reasonOf(error)}`];
      return { fingerprint, document: before?.document, mistakes };
    }
  }

  #watch(identity: string): void {
    if (this.#watched === identity && this.#watcher !== undefined) return;
    this.#watcher?.close();
    this.#watched = identity;
    try {
      this.#watcher = watch(this.#directory, { persistent: false }, () => {
        if (this.#scan !== undefined) this.#again = true;
        else this.#changes.touch();
      });
      this.#watcher.on('error', () => {
        this.#watcher?.close();
        this.#watcher = undefined;
      });
    } catch {
      // No inotify watch left: the periodic comparison goes on.
      this.#watcher = undefined;
    }
  }
}

/**
 * All bytes of a file that is expected to have so many. A file that is being written has more of them when it is read
 * than when it was asked for its size: what counts against the bound is what is read.
 */
async function readAll(file: FileHandle, size: number): Promise<Uint8Array<ArrayBuffer>> {
  let bytes = new Uint8Array(Math.min(size, MAX_FILE_BYTES) + 1);
  for (let length = 0; ; ) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length);
    if (bytesRead === 0) return bytes.slice(0, length);
    length += bytesRead;
    if (length > MAX_FILE_BYTES) throw new DocumentError([`1:1: found more than ${MAX_FILE_BYTES} bytes`]);
    if (length < bytes.length) continue;
    const longer = new Uint8Array(Math.min(2 * length, MAX_FILE_BYTES + 1));
    longer.set(bytes);
    bytes = longer;
  }
}

function sameDocuments(a: ReadonlyMap<string, KnownFile>, b: ReadonlyMap<string, KnownFile>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, file] of a) {
    const other = b.get(name);
    if (other === undefined || other.document !== file.document) return false;
  }
  return true;
}

function fingerprintOf(about: Stats): string {
  return `${about.dev}:${about.ino}:${about.size}:${about.mtimeMs}:${about.ctimeMs}`;
}
