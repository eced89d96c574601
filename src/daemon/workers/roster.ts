import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A worker as the supervisor after this one will know it. */
export interface RosterEntry {
  readonly pid: number;
  /** {@link processStarted}: with the process id it names one process for ever. */
  readonly started: string;
}

/** A file of more bytes is none of ours. */
const MOST_BYTES = 64 * 1024;

const fileOf = (runtimeDirectory: string): string => join(runtimeDirectory, 'workers.json');

/** Writes down which workers will wait for the next supervisor when this one is gone. */
export function writeRoster(runtimeDirectory: string, pids: readonly number[]): void {
  const entries = pids.flatMap((pid): RosterEntry[] => {
    const started = processStarted(pid);
    return started === undefined ? [] : [{ pid, started }];
  });
  const file = fileOf(runtimeDirectory);
  writeFileSync(`${file}.new`, `${JSON.stringify(entries)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** The workers of the supervisor before this one that still run; none when nothing usable was written down. */
export function readRoster(runtimeDirectory: string): readonly RosterEntry[] {
  try {
    const text = readFileSync(fileOf(runtimeDirectory), 'utf8');
    const entries: unknown = text.length > MOST_BYTES ? [] : JSON.parse(text);
    return Array.isArray(entries) ? entries.filter(isEntry).filter(stillRuns) : [];
  } catch {
    return [];
  }
}

/** True while this very process runs, and not another one that was given its number. */
export function stillRuns({ pid, started }: RosterEntry): boolean {
  return processStarted(pid) === started;
}

/** Clock ticks between boot and the start of a process (proc(5), field 22); undefined when it has ended. */
export function processStarted(pid: number): string | undefined {
  try {
    // The name in parentheses may hold anything; what follows it does not.
    const [state, ...fields] = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return state === 'Z' || state === 'X' ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

function isEntry(entry: unknown): entry is RosterEntry {
  if (typeof entry !== 'object' || entry === null) return false;
  const { pid, started } = entry as Partial<RosterEntry>;
  return Number.isSafeInteger(pid) && pid! > 1 && typeof started === 'string';
}
