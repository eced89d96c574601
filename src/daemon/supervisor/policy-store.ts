import { FileTier } from '../../cache/file-tier.ts';
import type { PolicyFile } from '../../policy/reading.ts';
import type { Log } from '../../telemetry/log.ts';

/** Name of the file in the state directory. */
const STORE_FILE = 'policies.cache';

/** Documents as they were when they were last in force. */
export interface KeptPolicies {
  readonly version: number;
  readonly files: readonly PolicyFile[];
}

type Kept = { readonly version: number; readonly files: number } | PolicyFile;

/**
 * Keeps the documents in force over restarts: what was forbidden stays so when the next start meets a bad document. The
 * texts are kept and not what was made of them, so that another version of the agent reads them by its own rules.
 */
export class PolicyStore {
  readonly #file: FileTier<Kept>;

  constructor(stateDirectory: string, log: Log) {
    this.#file = new FileTier<Kept>({
      path: `${stateDirectory}/${STORE_FILE}`,
      writeDelay: 0,
      check: parseKept,
      log,
    });
  }

  /** Undefined: nothing was kept, or it cannot be read. Never fails. */
  async load(): Promise<KeptPolicies | undefined> {
    const { records } = await this.#file.load();
    const [first, ...rest] = records;
    if (first === undefined || !('version' in first)) return undefined;
    const files = rest.filter((record) => 'path' in record);
    return files.length === first.files ? { version: first.version, files } : undefined;
  }

  keep({ version, files }: KeptPolicies): void {
    this.#file.changed(() => [{ version, files: files.length }, ...files]);
  }

  /** Writes what is waiting to be written. */
  flush(): Promise<void> {
    return this.#file.flush();
  }
}

function parseKept(record: unknown): Kept | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { version, files, path, bytes } = record as Readonly<Record<string, unknown>>;
  if (isCount(version) && isCount(files)) return { version, files };
  if (typeof path !== 'string' || !(bytes instanceof Uint8Array)) return undefined;
  return { path, bytes: new Uint8Array(bytes) };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
