import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Directory of `package.json` of the running program, as it was called when this module was loaded. */
export const PROGRAM_DIRECTORY = directoryAbove(fileURLToPath(import.meta.url));

/**
 * Where the build puts an entry of the program, below the program's directory. The build bundles: of a module that is no
 * entry (rolldown.config.ts) there is no file of its own.
 */
export const entryFile = (name: ProgramEntry): string => `dist/${name}.js`;

/** Programs that are started by name: the command line, and what it and the daemon start as processes and threads. */
type ProgramEntry =
  | 'main'
  | 'daemon/worker/worker-main'
  | 'registry/document-thread-main'
  | 'policy/reader-thread-main'
  | 'cli/checks/self-test-main';

function directoryAbove(path: string): string {
  const directory = dirname(path);
  if (existsSync(join(directory, 'package.json'))) return directory;
  if (directory === path) throw new Error('no package.json above the program');
  return directoryAbove(directory);
}
