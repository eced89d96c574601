import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, lstat, mkdir, open, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { MeshError, reasonOf } from '../model/errors.ts';

/** Largest PEM file that is read: an authority bundle of some hundred certificates. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Modes of what this room writes. */
export const fileMode = { directory: 0o700, key: 0o600, certificate: 0o644 } as const;

/** Who owns a written file; by default the process. */
export interface FileOwner {
  readonly uid: number;
  readonly gid: number;
}

/** One file to be written. */
interface NewFile {
  readonly path: string;
  readonly text: string;
  readonly mode: number;
  readonly owner?: FileOwner | undefined;
  /** Without it, a file that is there already is an error. */
  readonly overwrite: boolean;
}

/**
 * Writes a file whole or not at all, and on the disk before it is seen under its name. It never has another mode
 * than the one asked for, not even for a moment.
 */
export async function writeFileAtomic(file: NewFile): Promise<void> {
  const temporary = join(dirname(file.path), `.mesh-node-${randomBytes(8).toString('hex')}.tmp`);
  try {
    const handle = await open(temporary, 'wx', file.mode);
    try {
      await handle.chmod(file.mode); // the umask may have taken bits away
      if (file.owner !== undefined) await handle.chown(file.owner.uid, file.owner.gid);
      await handle.writeFile(file.text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // link(2) fails where the name exists, and it decides that in one step; rename(2) replaces.
    if (file.overwrite) await rename(temporary, file.path);
    else await link(temporary, file.path);
  } catch (error) {
    if (isErrno(error, 'EEXIST')) throw alreadyThere(file.path);
    throw new MeshError('configuration', 'operator', `cannot write ${file.path}: ${reasonOf(error)}`, {
      cause: error,
    });
  } finally {
    await unlink(temporary).catch(() => undefined); // after rename there is nothing left to remove
  }
}

/** Fails when something has this name already. */
export async function requireAbsent(path: string): Promise<void> {
  if (await lstat(path).catch(() => undefined)) throw alreadyThere(path);
}

/** Makes a directory that only its owner may enter; one that is there already stays as it is. */
export async function makePrivateDirectory(path: string, owner?: FileOwner): Promise<void> {
  try {
    const made = await mkdir(path, { recursive: true, mode: fileMode.directory });
    if (made === undefined) return;
    const handle = await open(path, 'r');
    try {
      await handle.chmod(fileMode.directory);
      if (owner !== undefined) await handle.chown(owner.uid, owner.gid);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new MeshError('configuration', 'operator', `cannot make directory ${path}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** Reads a PEM file. With `secret`, one that its group or others may touch is refused. */
export async function readPemFile(path: string, what: string, secret: boolean): Promise<string> {
  const fail = (why: string, cause?: unknown) =>
    new MeshError('configuration', 'operator', `${what} ${path} ${why}`, { cause });
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    // A pipe in place of the file must not make a thread wait for its writer.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw fail(`cannot be read: ${reasonOf(error)}`, error);
  }
  try {
    // The descriptor is asked, not the name: nobody can put another file there in between.
    const found = await handle.stat();
    const { mode, size } = found;
    if (!found.isFile()) throw fail('cannot be read: it is not a file');
    if (secret && (mode & 0o077) !== 0) {
      const octal = (mode & 0o7777).toString(8).padStart(4, '0');
      throw fail(`has mode ${octal}: it must not be accessible to group or others (chmod 0600 ${path})`);
    }
    if (size > MAX_FILE_BYTES) throw fail(`is larger than ${MAX_FILE_BYTES} bytes`);
    const buffer = Buffer.alloc(MAX_FILE_BYTES);
    const { bytesRead } = await handle.read(buffer, 0, MAX_FILE_BYTES, 0);
    return buffer.toString('utf8', 0, bytesRead);
  } catch (error) {
    throw error instanceof MeshError ? error : fail(`cannot be read: ${reasonOf(error)}`, error);
  } finally {
    await handle.close();
  }
}

/** Text of a file, or undefined where there is none. */
export async function readPemFileIfAny(path: string, what: string): Promise<string | undefined> {
  if ((await lstat(path).catch(() => undefined)) === undefined) return undefined;
  return readPemFile(path, what, false);
}

function alreadyThere(path: string): MeshError {
  return new MeshError('configuration', 'operator', `${path} exists already and was not overwritten`);
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
