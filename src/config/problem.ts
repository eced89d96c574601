import { MeshError } from '../model/errors.ts';

/** One thing that is wrong with the configuration, and where. */
export interface ConfigProblem {
  /** A file's path, the name of an environment variable, or a flag. */
  readonly origin: string;
  /** From 1; absent where there is no text with lines (environment, flags). */
  readonly line?: number;
  readonly column?: number;
  /** `tunnel.port`, `registries[0].type`; empty for the document as a whole. */
  readonly path: string;
  readonly found: string;
  readonly expected: string;
  /** For a person: what was probably meant. */
  readonly hint?: string;
}

/** `FILE:LINE:COLUMN: path: found …, expected … (hint)`, the form that editors can jump to. */
export function formatProblem(problem: ConfigProblem): string {
  const at =
    problem.line === undefined ? problem.origin : `${problem.origin}:${problem.line}:${problem.column ?? 1}`;
  const path = problem.path === '' ? '' : `${problem.path}: `;
  const hint = problem.hint === undefined ? '' : ` (${problem.hint})`;
  return `${at}: ${path}found ${problem.found}, expected ${problem.expected}${hint}`;
}

/** The configuration cannot be used; it lists everything that is wrong, not only the first thing. */
export class ConfigError extends MeshError {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super('configuration', 'operator', problems.map(formatProblem).join('\n'));
    this.problems = problems;
  }
}

/** Dotted text of a path: `zones[1].gateways[0].node`. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += text === '' ? String(part) : `.${String(part)}`;
  }
  return text;
}

/** The candidate that `name` was probably meant to be; undefined when none is near. */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  // Two edits are a slip; in short names only one is, or everything would be near everything.
  const most = name.length <= 4 ? 1 : name.length <= 8 ? 2 : 3;
  if (name.length > 64) return undefined;
  let best: string | undefined;
  let least = most + 1;
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) > most) continue;
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

/** Edits from one word to the other: letters changed, added, left out, or two neighbours swapped (`prot`). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      next.push(Math.min(changed, row[j]! + 1, next[j - 1]! + 1, swapped ? before[j - 2]! + 1 : changed));
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}
