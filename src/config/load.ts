import { readFileSync, statSync } from 'node:fs';
import { crossCheck } from './cross-checks.ts';
import { type ConfigDocument, MOST_CONFIG_BYTES, MOST_PROBLEMS, readDocument } from './document.ts';
import type { Finding } from './explain.ts';
import { CONFIG_VARIABLE, environmentOverrides, flagOverrides, type Override, overlay } from './overlay.ts';
import { ConfigError, type ConfigProblem, pathText } from './problem.ts';
import type { Config } from './schema.ts';
import { validate } from './validate.ts';

/** Read when no other file is named; all defaults hold when it does not exist. */
const DEFAULT_CONFIG_FILE = '/etc/mesh-node/mesh-node.yaml';

/** Where the configuration comes from; flags win over the environment, and that over the file. */
export interface ConfigSources {
  /** Path of the file. One that is named here or by MESH_NODE_CONFIG must exist. */
  readonly file?: string;
  /** Text in place of a file's; `file` is then only its name in messages. */
  readonly text?: string | Uint8Array;
  /** Usually `process.env`; every MESH_NODE_* variable must be one that is known. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `section.key=value`, as after `--set`. */
  readonly flags?: readonly string[];
}

/** The file that these sources name: a flag's, else the environment's, else the default. */
export function configFileOf(sources: ConfigSources): string {
  return sources.file ?? sources.env?.[CONFIG_VARIABLE] ?? DEFAULT_CONFIG_FILE;
}

/**
 * The configuration: complete, checked and frozen. Throws a {@link ConfigError} that lists all problems, each with
 * its file, line and column.
 */
export function loadConfig(sources: ConfigSources = {}): Config {
  const origin = configFileOf(sources);
  const named = sources.file !== undefined || sources.env?.[CONFIG_VARIABLE] !== undefined;
  const bytes = sources.text === undefined ? readFile(origin, named) : encoded(sources.text);
  const document = bytes === undefined ? undefined : readDocument(origin, bytes);
  const environment = environmentOverrides(sources.env ?? {});
  const flags = flagOverrides(sources.flags ?? []);
  const outside = [...environment.problems, ...flags.problems];
  if (document !== undefined && 'problems' in document)
    throw new ConfigError([...document.problems, ...outside]);

  const overrides = [...environment.overrides, ...flags.overrides];
  const checked = validate(overlay(document?.value ?? null, overrides));
  const findings = 'findings' in checked ? checked.findings : crossCheck(checked.config);
  const problems = findings
    .slice(0, MOST_PROBLEMS)
    .map((finding) => locate(finding, origin, document, overrides));
  if (problems.length + outside.length > 0) throw new ConfigError([...sorted(problems), ...outside]);
  return (checked as { readonly config: Config }).config;
}

function encoded(text: string | Uint8Array): Uint8Array {
  return typeof text === 'string' ? Buffer.from(text) : text;
}

function readFile(file: string, mustExist: boolean): Uint8Array | undefined {
  const wrong = (found: string, expected: string): ConfigError =>
    new ConfigError([{ origin: file, path: '', found, expected }]);
  try {
    const { size } = statSync(file);
    // Looked at before reading, so that a wrong path to something huge does not fill the memory.
    if (size > MOST_CONFIG_BYTES) throw wrong(`${size} bytes`, `at most ${MOST_CONFIG_BYTES}`);
    return readFileSync(file);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && !mustExist) return undefined;
    if (code === 'ENOENT') throw wrong('no such file', 'the configuration file that was named');
    throw wrong(`a file that cannot be read (${code})`, 'a readable file');
  }
}

/** Adds the place to a finding: that of the override which set the value, else the one in the file. */
function locate(
  finding: Finding,
  origin: string,
  document: ConfigDocument | undefined,
  overrides: readonly Override[],
): ConfigProblem {
  const { path, found, expected, hint } = finding;
  const rest = { path: pathText(path), found, expected, ...(hint === undefined ? {} : { hint }) };
  const override = overrides.findLast((one) => one.path.join('.') === path.join('.'));
  if (override !== undefined) return { origin: override.origin, ...rest };
  if (document === undefined) return { origin, ...rest };
  const place = finding.aboutKey
    ? document.placeOfKey(path.slice(0, -1), String(path.at(-1)))
    : document.placeOf(path);
  return { origin, ...place, ...rest };
}

function sorted(problems: readonly ConfigProblem[]): readonly ConfigProblem[] {
  return problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
}
