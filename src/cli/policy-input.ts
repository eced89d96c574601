import { basename, dirname, join } from 'node:path';
import { type ConfigDocument, readDocuments } from '../config/document.ts';
import { ConfigError, type ConfigProblem } from '../config/problem.ts';
import { readDirectory } from '../policy/directory.ts';
import { type PolicyContent, type PolicyFile, readPolicies } from '../policy/reading.ts';
import { sectionNames } from '../policy/schema/document.ts';

/** The set that these files make; throws a ConfigError with everything that is wrong. */
export function policiesOf(files: readonly PolicyFile[]): PolicyContent {
  const reading = readPolicies(files);
  if ('problems' in reading) throw new ConfigError(reading.problems);
  return reading;
}

/** The files of a directory of policies; undefined when there is no such directory. Throws a ConfigError. */
export async function filesOf(directory: string): Promise<readonly PolicyFile[] | undefined> {
  const reading = await readDirectory(directory);
  if (reading === 'missing') return undefined;
  if ('problems' in reading) throw new ConfigError(reading.problems);
  return reading.files;
}

/** The files, with this one in the place of the one of its name, or beside them. */
export function withFile(
  files: readonly PolicyFile[],
  directory: string,
  file: PolicyFile,
): readonly PolicyFile[] {
  const name = basename(file.path);
  const others = files.filter(({ path }) => path !== join(directory, name));
  return [...others, file].sort((a, b) => (basename(a.path) < basename(b.path) ? -1 : 1));
}

/** True for a file of policies: it says of which service it speaks, or has sections that the configuration has not. */
export function looksLikePolicies(path: string, bytes: Uint8Array): boolean {
  const read = readDocuments(path, bytes);
  if ('problems' in read) return basename(dirname(path)) === 'policies.d';
  return read.documents.length > 1 || read.documents.some(isPolicies);
}

/** `balance` is a section of both. */
const TELLING: ReadonlySet<string> = new Set([
  'service',
  ...sectionNames.filter((name) => name !== 'balance'),
]);

function isPolicies({ value }: ConfigDocument): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).some(
    ([key, said]) => TELLING.has(key) || (key === 'services' && Array.isArray(said)),
  );
}

/** As ConfigError does, of problems that may be none. */
export function problemsOf(check: () => unknown): readonly ConfigProblem[] {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}
