import { existsSync } from 'node:fs';
import type { OfferedDescriptor } from './held-listeners.ts';

/** Environment variable in which an image of the supervisor tells the next one what it leaves to it, as JSON. */
const VARIABLE = 'MESH_INHERITED';

/** What an image of the supervisor leaves to the next one, which has the same process id. */
export interface Inheritance {
  readonly listeners: readonly OfferedDescriptor[];
  /** Where the program is installed, whatever directory it is started from. */
  readonly installedAt: string;
  /** The version before, and where its program lies: it goes on when the next one cannot start. */
  readonly from: { readonly version: string; readonly directory: string };
  /** The next version could not start: this is the one before again, and why. */
  readonly failed?: string;
}

/** The variable for the environment of the next image. */
export function bequeath(inheritance: Inheritance): Readonly<Record<string, string>> {
  return { [VARIABLE]: JSON.stringify(inheritance) };
}

/** Takes what was left to this image, and the variable out of the environment; undefined after an ordinary start. */
export function inherit(environment: NodeJS.ProcessEnv): Inheritance | undefined {
  const text = environment[VARIABLE];
  delete environment[VARIABLE];
  if (text === undefined) return undefined;
  const { listeners, installedAt, from, failed } = JSON.parse(text) as Inheritance;
  return {
    // A descriptor that is not open would close somebody else's later.
    listeners: listeners.filter(({ fd }) => existsSync(`/proc/self/fd/${fd}`)),
    installedAt,
    from,
    ...(failed === undefined ? {} : { failed }),
  };
}
