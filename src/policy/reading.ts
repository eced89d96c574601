import { type ConfigDocument, MOST_PROBLEMS, readDocuments } from '../config/document.ts';
import { explain, type Finding } from '../config/explain.ts';
import { type ConfigProblem, pathText } from '../config/problem.ts';
import type { PolicySet, ServicePolicy } from '../model/policy.ts';
import { policyLimits } from './limits.ts';
import {
  documentSchema,
  longSchema,
  type PolicyDocument,
  type PolicySection,
  sectionNames,
} from './schema/document.ts';

/** One file of a policy directory. */
export interface PolicyFile {
  /** Its path, as problems name it. */
  readonly path: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** `FILE:LINE` of each section, by service; `*` for those of all others. */
export type PolicyOrigins = Readonly<Record<string, Readonly<Partial<Record<PolicySection, string>>>>>;

/** What the files of a directory say together. */
export interface PolicyContent {
  readonly policies: Omit<PolicySet, 'version'>;
  readonly origins: PolicyOrigins;
}

export type PolicyReading =
  | PolicyContent
  | {
      readonly problems: readonly ConfigProblem[];
      /** They were not read to their end, for want of time, memory or a thread: another try may do better. */
      readonly unread?: true;
    };

/** Service under which sections for all others stand. */
export const COMMON = '*';
/** Problems that are told of all files together. */
const MOST_PROBLEMS_IN_ALL = 100;

interface PlacedDocument extends PolicyDocument {
  /** Where its sections stand. */
  readonly places: Readonly<
    Partial<
      Record<PolicySection, { readonly origin: string; readonly line: number; readonly column: number }>
    >
  >;
}

/**
 * Reads files as one set: all of them have to be good. Pure, never throws; the work is bounded by the bytes, but not small
 * enough for a process that has other things to do (`ThreadedReader`).
 */
export function readPolicies(files: readonly PolicyFile[]): PolicyReading {
  const problems: ConfigProblem[] = [];
  const documents: PlacedDocument[] = [];
  for (const { path, bytes } of files) {
    const read = readPolicyFile(path, bytes);
    if ('problems' in read) problems.push(...read.problems);
    else documents.push(...read.documents);
    if (problems.length >= MOST_PROBLEMS_IN_ALL) break;
  }
  if (problems.length > 0) return { problems: problems.slice(0, MOST_PROBLEMS_IN_ALL) };
  return compose(documents);
}

/** Reads one file of any number of documents. */
function readPolicyFile(
  origin: string,
  bytes: Uint8Array,
): { readonly documents: readonly PlacedDocument[] } | { readonly problems: readonly ConfigProblem[] } {
  const whole = (found: string, expected: string) => ({ problems: [{ origin, path: '', found, expected }] });
  if (bytes.length > policyLimits.fileBytes)
    return whole(`${bytes.length} bytes`, `at most ${policyLimits.fileBytes}`);
  // What a writer leaves behind that has not finished, or met a full disk.
  if (bytes.length === 0)
    return whole('an empty file', 'a document; a file that says nothing is to be deleted');
  const read = readDocuments(origin, bytes);
  if ('problems' in read) return read;
  if (read.documents.length > policyLimits.documents)
    return whole(`${read.documents.length} documents`, `at most ${policyLimits.documents}`);
  const documents: PlacedDocument[] = [];
  const problems: ConfigProblem[] = [];
  for (const document of read.documents) {
    // Nothing but comments.
    if (document.value === null || document.value === undefined) continue;
    const checked = check(document.value);
    if ('findings' in checked)
      problems.push(...checked.findings.map((one) => located(one, origin, document)));
    else documents.push(placed(checked.document, origin, document));
    if (problems.length >= MOST_PROBLEMS) break;
  }
  if (problems.length === 0) return { documents };
  const inOrder = problems.toSorted(
    (a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0),
  );
  return { problems: inOrder.slice(0, MOST_PROBLEMS) };
}

function check(
  value: unknown,
): { readonly document: PolicyDocument } | { readonly findings: readonly Finding[] } {
  const hidden = prototypeKey(value, new Set(), []);
  if (hidden !== undefined) {
    const finding = {
      path: hidden,
      aboutKey: true,
      found: 'a key that is not allowed',
      expected: 'another one',
    };
    return { findings: [finding] };
  }
  const result = documentSchema.safeParse(value);
  if (result.success) return { document: result.data };
  const issues = result.error.issues.slice(0, MOST_PROBLEMS);
  const findings = issues.flatMap((issue) => explain(issue, value, longSchema));
  // A document in which nothing is said because of a slip in a key has one mistake, not two.
  const slipped = findings.some(({ aboutKey, path }) => aboutKey && path.length === 1);
  return { findings: slipped ? findings.filter(({ path }) => path.length > 0) : findings };
}

/** Path of a key `__proto__`, which maps of JavaScript lose without a word. */
function prototypeKey(
  value: unknown,
  seen: Set<unknown>,
  path: readonly PropertyKey[],
): readonly PropertyKey[] | undefined {
  if (typeof value !== 'object' || value === null || seen.has(value)) return undefined;
  seen.add(value);
  for (const [key, child] of Object.entries(value)) {
    const at = [...path, Array.isArray(value) ? Number(key) : key];
    if (key === '__proto__') return at;
    const below = prototypeKey(child, seen, at);
    if (below !== undefined) return below;
  }
  return undefined;
}

function located(
  { path, aboutKey, ...rest }: Finding,
  origin: string,
  document: ConfigDocument,
): ConfigProblem {
  const place = aboutKey
    ? document.placeOfKey(path.slice(0, -1), String(path.at(-1)))
    : document.placeOf(path);
  return { origin, ...place, path: pathText(path), ...rest };
}

function placed(document: PolicyDocument, origin: string, { placeOfKey }: ConfigDocument): PlacedDocument {
  const said = sectionNames.filter((section) => document.policy[section] !== undefined);
  const places = Object.fromEntries(said.map((section) => [section, { origin, ...placeOfKey([], section) }]));
  return { ...document, places };
}

/** All documents together: each section of each service from one of them. */
function compose(documents: readonly PlacedDocument[]): PolicyReading {
  const services = new Map<string, Partial<Record<PolicySection, unknown>>>();
  const origins = new Map<string, Partial<Record<PolicySection, string>>>();
  const problems: ConfigProblem[] = [];
  let bytes = 0;
  for (const { services: names, policy, places } of documents) {
    bytes += names.length * Buffer.byteLength(JSON.stringify(policy));
    const [first] = Object.values(places);
    if (bytes > policyLimits.setBytes) {
      const found = `more than ${policyLimits.setBytes} bytes of policies in all, each service on its own`;
      return { problems: [...problems, { ...first!, path: '', found, expected: 'less' }] };
    }
    for (const name of names) {
      const own = getOrMake(services, name);
      const from = getOrMake(origins, name);
      for (const section of sectionNames) {
        if (policy[section] === undefined) continue;
        const place = places[section]!;
        const other = from[section];
        if (other !== undefined) {
          const found = `${section} of ${name}, which ${other} has already`;
          problems.push({ ...place, path: section, found, expected: 'each section of a service once' });
          if (problems.length >= MOST_PROBLEMS) return { problems };
          continue;
        }
        own[section] = policy[section];
        from[section] = `${place.origin}:${place.line}`;
      }
    }
  }
  if (problems.length > 0) return { problems };
  const common = (services.get(COMMON) ?? {}) as ServicePolicy;
  services.delete(COMMON);
  return {
    policies: { common, services: Object.fromEntries(services) as Readonly<Record<string, ServicePolicy>> },
    origins: Object.fromEntries(origins),
  };
}

function getOrMake<T extends object>(map: Map<string, T>, name: string): T {
  const known = map.get(name);
  if (known !== undefined) return known;
  const made = {} as T;
  map.set(name, made);
  return made;
}
