import { open } from 'node:fs/promises';
import { MeshError } from '../model/errors.ts';

/** Most bytes of a file with a key, password or certificate. */
const MAX_BYTES = 64 * 1024;

/** A key or password: the file's text without white space around it. A file that others may read is refused. */
export async function readSecret(path: string): Promise<string> {
  const text = (await readSmall(path, true)).trim();
  if (text === '') throw configuration(`${path} is empty`);
  return text;
}

/** A file without secrets, such as certificates: its text. */
export function readPublic(path: string): Promise<string> {
  return readSmall(path, false);
}

async function readSmall(path: string, secret: boolean): Promise<string> {
  await using file = await open(path, 'r');
  const about = await file.stat();
  if (secret && (about.mode & 0o077) !== 0)
    throw configuration(`${path} is readable by others; expected mode 0600`);
  if (about.size > MAX_BYTES) throw configuration(`${path} has more than ${MAX_BYTES} bytes`);
  return file.readFile('utf8');
}

function configuration(text: string): MeshError {
  return new MeshError('configuration', 'operator', text);
}
