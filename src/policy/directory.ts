import { type BigIntStats, constants } from 'node:fs';
import { lstat, open, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigProblem } from '../config/problem.ts';
import { policyLimits } from './limits.ts';
import type { PolicyFile } from './reading.ts';

/** Neither hidden nor what an editor leaves behind. */
const IS_DOCUMENT = /^[^.].*\.ya?ml$/;
/** A directory that changes while it is read is read again for so long, with pauses that grow. */
const MOST_RETRYING_MS = 2000;
const LEAST_PAUSE_MS = 2;
const MOST_PAUSE_MS = 50;
const MAY_OTHERS_WRITE = 0o002n;

/** What a directory holds at one moment. */
export interface DirectoryContent {
  /** Another one means that something was changed. */
  readonly fingerprint: string;
  /** In the order of their names. */
  readonly files: readonly PolicyFile[];
  /** What is not as it should be, and yet no reason to refuse it. */
  readonly warnings: readonly string[];
}

export type DirectoryReading = DirectoryContent | 'missing' | { readonly problems: readonly ConfigProblem[] };

interface Listing {
  readonly directory: string;
  readonly names: readonly string[];
  readonly fingerprint: string;
  readonly warnings: readonly string[];
  readonly sizes: readonly number[];
}

/** Something is not as a directory of policies may be. */
class Refused extends Error {
  readonly problem: ConfigProblem;

  constructor(origin: string, found: string, expected: string) {
    super(found);
    this.problem = { origin, path: '', found, expected };
  }
}

/**
 * Reads all files of a directory, as they were at one moment: when one changes, or the directory is replaced (a symbolic
 * link that is put elsewhere), while they are read, it begins anew.
 */
export async function readDirectory(path: string): Promise<DirectoryReading> {
  try {
    const late = performance.now() + MOST_RETRYING_MS;
    for (let pause = LEAST_PAUSE_MS; ; pause = Math.min(2 * pause, MOST_PAUSE_MS)) {
      const read = await readOnce(path).catch(unlessGone);
      if (read !== undefined) return read;
      if (performance.now() > late)
        throw new Refused(path, 'files that change all the time', 'files that rest for a moment');
      await sleep(pause);
    }
  } catch (error) {
    if (error instanceof Refused) return { problems: [error.problem] };
    const { code, message, path: where } = error as NodeJS.ErrnoException;
    const found = `what cannot be read (${code ?? message})`;
    return {
      problems: [{ origin: where ?? path, path: '', found, expected: 'a directory of readable files' }],
    };
  }
}

/** Undefined when it was changed meanwhile. */
async function readOnce(path: string): Promise<DirectoryContent | 'missing' | undefined> {
  const before = await list(path);
  if (before === undefined) return 'missing';
  const files = await readFiles(path, before);
  if (files === undefined || (await list(path))?.fingerprint !== before.fingerprint) return undefined;
  return { fingerprint: before.fingerprint, files, warnings: before.warnings };
}

/** The {@link DirectoryContent.fingerprint} alone; undefined when there is none to be had. */
export async function fingerprintOf(path: string): Promise<string | undefined> {
  return (await list(path).catch(() => undefined))?.fingerprint;
}

async function list(path: string): Promise<Listing | undefined> {
  const directory = await realpath(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (directory === undefined) return undefined;
  const names = (await readdir(directory)).filter((name) => IS_DOCUMENT.test(name)).sort();
  if (names.length > policyLimits.files)
    throw new Refused(path, `${names.length} files`, `at most ${policyLimits.files}`);
  const prints = [directory];
  const warnings: string[] = [];
  const sizes: number[] = [];
  let bytes = 0;
  const looked = (at: string, about: BigIntStats): void => {
    if ((about.mode & MAY_OTHERS_WRITE) !== 0n) warnings.push(`${at}: everybody may write it`);
  };
  looked(path, await stat(directory, { bigint: true }));
  for (const name of names) {
    const at = join(path, name);
    const about = await lookAt(join(directory, name), at);
    if (!about.isFile()) throw new Refused(at, 'something else', 'a regular file');
    if (about.size > policyLimits.fileBytes)
      throw new Refused(at, `${about.size} bytes`, `at most ${policyLimits.fileBytes}`);
    bytes += Number(about.size);
    if (bytes > policyLimits.bytes)
      throw new Refused(at, `more than ${policyLimits.bytes} bytes with the files before it`, 'less');
    looked(at, about);
    sizes.push(Number(about.size));
    prints.push(`${name} ${about.dev} ${about.ino} ${about.size} ${about.mtimeNs} ${about.ctimeNs}`);
  }
  return { directory, names, fingerprint: prints.join('\n'), warnings, sizes };
}

/** What a file is; `at` is what it is called in problems. */
async function lookAt(file: string, at: string): Promise<BigIntStats> {
  try {
    return await stat(file, { bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    // It may have gone since the directory was listed.
    if (!(await lstat(file)).isSymbolicLink()) throw error;
    throw new Refused(at, 'a link that leads nowhere', 'a regular file');
  }
}

/** What was there when the directory was listed, and is no longer, was changed meanwhile. */
function unlessGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

/** Undefined when a file is not what it was listed as. */
async function readFiles(path: string, listing: Listing): Promise<readonly PolicyFile[] | undefined> {
  const files: PolicyFile[] = [];
  for (const [at, name] of listing.names.entries()) {
    const size = listing.sizes[at]!;
    // Without waiting: to open a FIFO would take until somebody writes to it.
    await using file = await open(join(listing.directory, name), constants.O_RDONLY | constants.O_NONBLOCK);
    const bytes = new Uint8Array(size + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < bytes.length; length += read)
      ({ bytesRead: read } = await file.read(bytes, length, bytes.length - length));
    if (length !== size) return undefined;
    files.push({ path: join(path, name), bytes: bytes.subarray(0, size) });
  }
  return files;
}
