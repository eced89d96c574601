import {
  isMap,
  isPair,
  isScalar,
  Lexer,
  LineCounter,
  type ParsedNode,
  parseDocument,
  type YAMLMap,
} from 'yaml';
import { z } from 'zod';
import { MOST_DEPTH, repeatedKeys, tooDeep } from '../config/nesting.ts';
import { parseEndpoint } from '../model/address.ts';
import { reasonOf } from '../model/errors.ts';
import {
  balancePolicies,
  deliverySources,
  MAX_SERVICE_PORTS,
  parseInstanceId,
  parseNodeName,
  parseServiceName,
  protocols,
  serviceModes,
} from '../model/service.ts';
import { DEFAULT_WEIGHT, serviceDefaults } from './defaults.ts';
import { registryLimits } from './limits.ts';

/*
 * One YAML file of the `file` registry: text in, checked document out, or the first mistakes with line and column.
 * docs/registries.md describes it for people.
 */

const EXPECT = {
  service: 'a service name: lower-case letters, digits, - and .',
  node: 'a node name: lower-case letters, digits, - and .',
  zone: 'a zone name: lower-case letters, digits, - and .',
  host: 'a host name: lower-case letters, digits, - and .',
  instance: 'an instance id: up to 253 printable characters without spaces',
  endpoint: 'ADDRESS:PORT, for example 10.0.0.1:8080 or [fd00::1]:8080',
} as const;

const checked = <T>(parse: (text: string) => T | undefined, expected: string) =>
  z.string().transform((text, context) => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: `expected ${expected}` });
    return z.NEVER;
  });

const zone = checked((text) => parseNodeName(text) as string | undefined, EXPECT.zone);
const endpoint = checked(parseEndpoint, EXPECT.endpoint);
const labels = z
  .record(z.string().min(1).max(registryLimits.labelKey), z.string().max(registryLimits.labelValue))
  .refine((record) => Object.keys(record).length <= registryLimits.labels, {
    message: `expected at most ${registryLimits.labels} labels`,
  });

/** One instance as a document writes it. */
export const instanceSchema = z.strictObject({
  id: checked(parseInstanceId, EXPECT.instance).optional(),
  address: endpoint,
  node: checked(parseNodeName, EXPECT.node).optional(),
  zone: zone.optional(),
  labels: labels.default({}),
  weight: z.int().min(1).max(65535).default(DEFAULT_WEIGHT),
  draining: z.boolean().default(false),
});

/** One service as a document writes it. */
export const serviceSchema = z.strictObject({
  name: checked(parseServiceName, EXPECT.service),
  protocol: z.enum(protocols).default(serviceDefaults.protocol),
  mode: z.enum(serviceModes).default(serviceDefaults.mode),
  interchangeable: z.boolean().default(serviceDefaults.interchangeable),
  balance: z.enum(balancePolicies).optional(),
  hosts: z
    .array(checked((text) => parseServiceName(text) as string | undefined, EXPECT.host))
    .max(registryLimits.aliasesPerService)
    .default([]),
  addresses: z.array(endpoint).max(registryLimits.aliasesPerService).default([]),
  ports: z.array(z.int().min(1).max(65535)).min(1).max(MAX_SERVICE_PORTS).optional(),
  source: z.enum(deliverySources).optional(),
  instances: z.array(instanceSchema).max(registryLimits.instancesPerService).default([]),
});

/** One node as a document writes it. */
export const nodeSchema = z.strictObject({
  name: checked(parseNodeName, EXPECT.node),
  zone,
  tunnel: endpoint,
});

const documentSchema = z.strictObject({
  services: z
    .array(serviceSchema)
    .max(registryLimits.services)
    .nullish()
    .transform((list) => list ?? []),
  nodes: z
    .array(nodeSchema)
    .max(registryLimits.nodes)
    .nullish()
    .transform((list) => list ?? []),
});

/** What one file says, checked, with defaults; what depends on other files (zones of nodes) is still open. */
export type CatalogueDocument = z.output<typeof documentSchema>;

/** Mistakes that are reported of one file. */
const MAX_MISTAKES = 20;

/** A file that cannot be used; `message` has one line for each mistake: `line:column: what`. */
export class DocumentError extends Error {
  override readonly name = 'DocumentError';
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(mistakes.join('\n'));
    this.mistakes = mistakes;
  }
}

/**
 * Pieces of YAML (indents, keys, marks) of one file. What a parsed file needs of memory follows them, up to 400 bytes
 * each, so that few bytes (`[[],[],…`) cannot need more than a large valid file: 4 MiB of one have 1,650,000.
 */
const MAX_TOKENS = 1_750_000;

/** Reads one file. Throws a {@link DocumentError} and nothing else. */
export function parseCatalogueDocument(content: string | Uint8Array): CatalogueDocument {
  const text = typeof content === 'string' ? content : new TextDecoder('utf-8').decode(content);
  const lines = new LineCounter();
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${line}:${col}`;
  };
  let tokens = 0;
  for (const _ of new Lexer().lex(text)) {
    if (++tokens > MAX_TOKENS) throw new DocumentError([`1:1: found more than ${MAX_TOKENS} pieces of YAML`]);
  }
  const deep = tooDeep(text);
  if (deep !== undefined)
    throw new DocumentError([`${placeIn(text, deep)}: nested deeper than ${MOST_DEPTH} levels`]);
  let root: ParsedNode | null;
  let value: unknown;
  try {
    const document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      stringKeys: true,
      uniqueKeys: false,
    });
    if (document.errors.length > 0) {
      throw new DocumentError(
        document.errors.slice(0, MAX_MISTAKES).map((error) => `${at(error.pos[0])}: ${error.message}`),
      );
    }
    const again = repeatedKeys(document, MAX_MISTAKES);
    if (again.length > 0) {
      throw new DocumentError(
        again.map(
          ({ range, value: key }) =>
            `${at(range?.[0] ?? 0)}: found ${clip(JSON.stringify(key) ?? 'a key')} again; expected each key once`,
        ),
      );
    }
    root = document.contents;
    // A file of nothing is a file whose writer has not finished, or met a full disk; `services: []` is a statement.
    if (root === null && text.trim() === '')
      throw new DocumentError(['1:1: found an empty file; expected services:']);
    value = document.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (error) {
    if (error instanceof DocumentError) throw error;
    // Nesting deeper than the stack, or more aliases than allowed.
    throw new DocumentError([`1:1: ${reasonOf(error)}`]);
  }
  const result = documentSchema.safeParse(value, { reportInput: true });
  if (!result.success) {
    throw new DocumentError(
      result.error.issues.slice(0, MAX_MISTAKES).flatMap((issue) => describe(issue, root, at)),
    );
  }
  const repeated = repetitions(result.data);
  if (repeated.length > 0) {
    throw new DocumentError(
      repeated
        .slice(0, MAX_MISTAKES)
        .map(({ path, what }) => `${at(offsetOf(root, path))}: ${pathText(path)}: ${what}`),
    );
  }
  return result.data;
}

function placeIn(text: string, offset: number): string {
  const before = text.slice(0, offset);
  return `${before.split('\n').length}:${offset - before.lastIndexOf('\n')}`;
}

type Path = readonly PropertyKey[];

function describe(
  issue: z.core.$ZodIssue,
  root: ParsedNode | null,
  at: (offset: number) => string,
): string[] {
  if (issue.code === 'unrecognized_keys') {
    const allowed = Object.keys(shapeAt(issue.path)).join(', ');
    // Each one is looked for in its map: all of 200,000 would take minutes.
    return issue.keys.slice(0, MAX_MISTAKES).map((key) => {
      const where = keyOffset(root, issue.path, key);
      return `${at(where)}: ${pathText([...issue.path, key])}: found an unknown key; expected one of: ${allowed}`;
    });
  }
  const said = /expected .*?(?=, received |$)/.exec(issue.message);
  const expected = said === null ? `expected ${lowerFirst(issue.message)}` : said[0];
  const found =
    issue.input === undefined ? 'nothing' : clip(JSON.stringify(issue.input) ?? String(issue.input));
  return [
    `${at(offsetOf(root, issue.path))}: ${pathText(issue.path) || 'document'}: found ${found}; ${expected}`,
  ];
}

function shapeAt(path: Path): Readonly<Record<string, unknown>> {
  if (path.length === 0) return documentSchema.shape;
  if (path[0] === 'nodes') return nodeSchema.shape;
  return path.includes('instances') ? instanceSchema.shape : serviceSchema.shape;
}

/** Names that must be unique within a file; the second one is the mistake. */
function repetitions(document: CatalogueDocument): { path: Path; what: string }[] {
  const found: { path: Path; what: string }[] = [];
  const services = new Set<string>();
  document.services.forEach((entry, i) => {
    if (services.has(entry.name))
      found.push({ path: ['services', i, 'name'], what: `found ${entry.name} a second time` });
    services.add(entry.name);
    const ids = new Set<string>();
    entry.instances.forEach((one, j) => {
      const id = one.id ?? `${one.address.ip} ${one.address.port}`;
      if (ids.has(id)) {
        const path = ['services', i, 'instances', j, one.id === undefined ? 'address' : 'id'];
        found.push({ path, what: 'found the same instance a second time; expected another id' });
      }
      ids.add(id);
    });
  });
  const nodes = new Set<string>();
  document.nodes.forEach((entry, i) => {
    if (nodes.has(entry.name))
      found.push({ path: ['nodes', i, 'name'], what: `found ${entry.name} a second time` });
    nodes.add(entry.name);
  });
  return found;
}

/** Offset of the value at a path, or of the nearest thing around it that the file has. */
function offsetOf(root: ParsedNode | null, path: Path): number {
  let here: unknown = root;
  let offset = root?.range[0] ?? 0;
  for (const step of path) {
    if (isMap(here)) {
      const pair = pairOf(here, step);
      if (pair === undefined) return offset;
      here = pair.value ?? pair.key;
    } else {
      here = (here as { items?: unknown[] } | null)?.items?.[Number(step)];
    }
    const range = (here as { range?: [number, number, number] | null } | null)?.range;
    if (range === undefined || range === null) return offset;
    offset = range[0];
  }
  return offset;
}

function keyOffset(root: ParsedNode | null, path: Path, key: string): number {
  let here: unknown = root;
  for (const step of path) {
    here = isMap(here)
      ? pairOf(here, step)?.value
      : (here as { items?: unknown[] } | null)?.items?.[Number(step)];
  }
  const found = isMap(here) ? pairOf(here, key)?.key : undefined;
  return (found as { range?: [number, number, number] } | undefined)?.range?.[0] ?? offsetOf(root, path);
}

function pairOf(map: YAMLMap, key: PropertyKey) {
  return map.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === key);
}

function pathText(path: Path): string {
  return path.reduce<string>(
    (text, step) =>
      typeof step === 'number' ? `${text}[${step}]` : text === '' ? String(step) : `${text}.${String(step)}`,
    '',
  );
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function clip(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`;
}
