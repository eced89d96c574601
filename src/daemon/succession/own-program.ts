import { openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PROGRAM_DIRECTORY } from '../../io/installation.ts';

/** What was installed, told apart from every other installation. */
export interface ProgramIdentity {
  readonly version: string;
  /** Version, and when its files were written. */
  readonly build: string;
}

/** Where the files lie that processes run, below a program's directory. */
const FILES = 'dist';

/** Reads what lies in a directory; throws when it is no mesh-node. */
function programAt(directory: string): ProgramIdentity {
  const text = readFileSync(join(directory, 'package.json'), 'utf8');
  const { version } = JSON.parse(text) as { readonly version: string };
  const files = join(directory, FILES);
  let newest = 0;
  for (const name of readdirSync(files, { recursive: true, encoding: 'utf8' }))
    newest = Math.max(newest, statSync(join(files, name)).mtimeMs);
  return { version, build: `${version}+${Math.round(newest).toString(36)}` };
}

/**
 * The installation that this process runs. Another version is put in its place by renaming: its own files are found all
 * the same, because the directory is kept open, wherever it was moved.
 */
export class OwnProgram {
  readonly identity: ProgramIdentity = programAt(PROGRAM_DIRECTORY);
  /** Where it was installed, and where another version lies now if it was replaced. */
  readonly installedAt: string;
  readonly #fd = openSync(PROGRAM_DIRECTORY, 'r');

  /** `installedAt`: when that is not where it was loaded from. */
  constructor(installedAt: string = PROGRAM_DIRECTORY) {
    this.installedAt = installedAt;
  }

  /** Where it lies now; once it has been deleted, where it was. */
  get directory(): string {
    const now = readlinkSync(`/proc/self/fd/${this.#fd}`);
    return now.endsWith(' (deleted)') ? this.installedAt : now;
  }

  /** What lies where this program was installed. */
  installed(): ProgramIdentity {
    return programAt(this.installedAt);
  }
}
