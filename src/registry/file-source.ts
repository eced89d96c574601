import { type FSWatcher, type Stats, watch } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { endpointKey } from '../model/address.ts';
import type { Instance, InstanceId, MeshNode, NodeName, Service, ServiceName } from '../model/service.ts';
import { type CatalogueDocument, DocumentError, parseCatalogueDocument } from './document.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';

/** Changes that come within this time are read together; editors write a file in several steps. */
const DEBOUNCE_MS = 50;
/** Watches miss things (network file systems, a directory that is mounted over): the directory is compared this often. */
const RESCAN_MS = 2000;
/** Files of one directory; further ones, by name, are not read and reported. */
const MAX_FILES = 10_000;
/** Bytes of one file. 1,000 services with ten instances each are about 1 MiB. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

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
}

/**
 * The `file` registry: a directory of YAML files. A deleted file removes its services; a directory that cannot be
 * read, or that is empty where it never was (what an unmounted one looks like), removes nothing; a broken file keeps
 * its last good content. Format: docs/registries.md.
 */
export class FileSource implements Source {
  readonly name: string;
  readonly #directory: string;
  readonly #context: SourceContext;
  readonly #state: SourceStateMachine;
  #files: ReadonlyMap<string, KnownFile> = new Map();
  /** Device and inode of the directory that was last read with success. */
  #identity: string | undefined;
  /** Names that several files claim. */
  #overlaps: readonly string[] = [];
  #listener: SourceListener | undefined;
  #watcher: FSWatcher | undefined;
  #watched: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #scan: Promise<void> | undefined;
  #again = false;

  constructor(options: FileSourceOptions) {
    this.#directory = options.directory;
    this.#context = options.context;
    this.name = `file:${options.directory}`;
    this.#state = new SourceStateMachine(this.name, options.context.log);
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
    this.#watcher?.close();
    this.#watcher = undefined;
    await this.#scan;
  }

  /** Reads the directory now, or once more after the reading that is going on. */
  #look(): void {
    if (this.#listener === undefined) return;
    clearTimeout(this.#timer);
    if (this.#scan !== undefined) {
      this.#again = true;
      return;
    }
    this.#scan = this.#readDirectory()
      .catch((error: unknown) => {
        if (this.#listener !== undefined) this.#state.unreachable(reasonOf(error));
      })
      .then(() => {
        this.#scan = undefined;
        if (this.#listener === undefined) return;
        this.#lookIn(this.#again ? DEBOUNCE_MS : RESCAN_MS);
        this.#again = false;
      });
  }

  #lookIn(delay: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), delay);
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
      const file = await readKnownFile(join(this.#directory, name), this.#files.get(name));
      if (file !== undefined) files.set(name, file);
    }
    // Files that vanish one after the other while the whole directory goes away are not facts.
    const after = await stat(this.#directory);
    if (`${after.dev}:${after.ino}` !== identity)
      throw new Error('the directory was replaced while it was read');
    if (this.#listener === undefined) return;

    const left = names.length - MAX_FILES;
    const beyond = left > 0 ? [`${left} files beyond ${MAX_FILES} are not read`] : [];
    if (this.#identity === undefined || !sameDocuments(files, this.#files)) {
      const { services, nodes, problems } = compose(files, this.#context);
      const complete = [...files.values()].every((file) => file.document !== undefined);
      this.#overlaps = problems;
      this.#listener.update({ kind: 'full', services, nodes, complete });
    }
    this.#files = files;
    this.#identity = identity;
    const mistakes = [...files].flatMap(([name, file]) =>
      file.mistakes.map((mistake) => `${name}:${mistake}`),
    );
    this.#state.confirmed([...mistakes, ...this.#overlaps, ...beyond]);
  }

  #watch(identity: string): void {
    if (this.#watched === identity && this.#watcher !== undefined) return;
    this.#watcher?.close();
    this.#watched = identity;
    try {
      this.#watcher = watch(this.#directory, { persistent: false }, () => {
        if (this.#scan !== undefined) this.#again = true;
        else this.#lookIn(DEBOUNCE_MS);
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

/** Reads a file unless it is what it was; undefined when it is gone. */
async function readKnownFile(path: string, before: KnownFile | undefined): Promise<KnownFile | undefined> {
  let fingerprint = 'unreadable';
  try {
    fingerprint = fingerprintOf(await stat(path));
    if (before?.fingerprint === fingerprint) return before;
    await using file = await open(path, 'r');
    const about = await file.stat();
    fingerprint = fingerprintOf(about);
    if (!about.isFile()) throw new DocumentError(['1:1: found no regular file']);
    if (about.size > MAX_FILE_BYTES)
      throw new DocumentError([`1:1: found more than ${MAX_FILE_BYTES} bytes`]);
    const document = parseCatalogueDocument(await file.readFile('utf8'));
    return { fingerprint, document, mistakes: [] };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    const mistakes = error instanceof DocumentError ? error.mistakes : [`1:1: ${reasonOf(error)}`];
    return { fingerprint, document: before?.document, mistakes };
  }
}

function fingerprintOf(about: Stats): string {
  return `${about.dev}:${about.ino}:${about.size}:${about.mtimeMs}:${about.ctimeMs}`;
}

function sameDocuments(a: ReadonlyMap<string, KnownFile>, b: ReadonlyMap<string, KnownFile>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, file] of a) {
    const other = b.get(name);
    if (other === undefined || other.document !== file.document) return false;
  }
  return true;
}

/** All files as one: the first file, by name, that names a service or node wins; zones come from nodes. */
function compose(files: ReadonlyMap<string, KnownFile>, context: SourceContext) {
  const services = new Map<ServiceName, Service>();
  const nodes = new Map<NodeName, MeshNode>();
  const problems: string[] = [];
  const from = new Map<string, string>();
  for (const [file, { document }] of files) {
    for (const node of document?.nodes ?? []) {
      const first = from.get(`node ${node.name}`);
      if (first !== undefined) problems.push(`${file}: node ${node.name} is also in ${first}, which is used`);
      else {
        from.set(`node ${node.name}`, file);
        nodes.set(node.name, Object.freeze(node));
      }
    }
  }
  for (const [file, { document }] of files) {
    for (const service of document?.services ?? []) {
      const first = from.get(service.name);
      if (first !== undefined) {
        problems.push(`${file}: service ${service.name} is also in ${first}, which is used`);
        continue;
      }
      from.set(service.name, file);
      services.set(service.name, {
        ...service,
        balance: service.balance ?? context.balance,
        instances: service.instances.map((instance): Instance => {
          const { id, node, zone, ...rest } = instance;
          return {
            ...rest,
            id: id ?? (endpointKey(instance.address) as string as InstanceId),
            ...(node === undefined ? {} : { node }),
            zone: zone ?? (node === undefined ? undefined : nodes.get(node)?.zone) ?? context.zone,
          };
        }),
      });
    }
  }
  return { services: [...services.values()], nodes: [...nodes.values()], problems };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
