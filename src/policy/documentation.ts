import { describeType, type JsonSchema } from '../config/keys.ts';
import { examples } from './examples.ts';
import { policyLimits } from './limits.ts';
import { editorSchema, longSchema, sectionNames } from './schema/document.ts';

/** docs/policies.schema.json: for editors, and for tools that write documents. */
export function policySchema(): string {
  return `${JSON.stringify(editorSchema(), undefined, 2)}\n`;
}

/** docs/policies.md. */
export function policiesPage(): string {
  return [
    '<!-- Made from src/policy/ by `npm run docs:generate`; do not edit. -->',
    '',
    ...INTRODUCTION,
    ...sectionNames.flatMap((name) => section(name, longSchema.properties![name]!, examples[name])),
    '',
    ...BOUNDS,
    '',
  ].join('\n');
}

const INTRODUCTION: readonly string[] = [
  '# Policies',
  '',
  'What operators say of services at run time: documents in YAML 1.2, in files `*.yaml` or `*.yml` of',
  '`/etc/mesh-node/policies.d` (`policies.directory`). A service of which nothing is said goes on as without policies, and a',
  'section that is absent changes nothing. Hidden files and what editors leave behind are passed over.',
  '',
  'The directory is watched. A change is in force within a second, for new requests and connections at once and without',
  'losing live ones. All files together are **one set, which is swapped whole**: when one document is bad, everything stays as it',
  'was, the mistake is logged once with file, line and column, and `mesh-node status` and the metric `mesh_node_policy_refused`',
  'show it until it is put right. An empty file is bad (its writer has not finished); to end a policy, delete its file. When the',
  'directory itself is gone, the last set stays.',
  '',
  'The last good documents are kept in the state directory. An agent that starts and finds bad ones goes by those, so what was',
  'forbidden stays so. When none were kept either, it starts without policies and is not ready (blocker `policies`).',
  '',
  '[Operations](operations.md#policies) tells how to change policies safely; `mesh-node validate`, `diff` and `policies` help.',
  '[policies.schema.json](policies.schema.json) tells editors what is said here.',
  '',
  '## Documents',
  '',
  'A document says of which service it speaks, and one section at least. A file may have several, with `---` between them.',
  '',
  '| key | type | meaning |',
  '|---|---|---|',
  '| `service` | service name or `*` | Of this service; `*`: of all services that do not have the section themselves. |',
  '| `services` | list of service names | The same of each of these. Exactly one of the two is there. |',
  '',
  'Sections of one service may stand in several documents and files, but each section once: two of them are a mistake that',
  'names both places. A service has its own section or that of `*`, never a mixture of the two.',
  '',
  'Documents are read strictly: a key that is not known, a value of another type or out of its range, a key given twice or a',
  'tag is an error. A *duration* is a number with `ms`, `s`, `m` or `h`, a *size* one with `B`, `KiB`, `MiB` or `GiB`. Where the type',
  'says “or a map”, the short form stands for the map with nothing else in it; where it says “or a list of such”, one may stand for',
  'itself. A section without anything in it (`retries:`) has its defaults. Regular expressions are',
  '[RE2](https://github.com/google/re2/wiki/Syntax): they take linear time, and match anywhere unless anchored.',
  '',
  '*Callers* are named `service:NAME` and `node:NAME`, which the certificate of their host proves, or `unit:NAME`, `user:NAME` and',
  '`container:ID`, which the agent of their host says: whoever has a host has all of its names. The part behind the colon may end in',
  '`*`. `*` alone is everybody.',
];

const BOUNDS: readonly string[] = [
  '## Bounds',
  '',
  'A directory beyond one of these is refused.',
  '',
  '| what | most |',
  '|---|---|',
  `| files; bytes of one, of all | ${policyLimits.files}; ${mib(policyLimits.fileBytes)}, ${mib(policyLimits.bytes)} |`,
  `| documents of a file, services of a document | ${policyLimits.documents}, ${policyLimits.servicesPerDocument} |`,
  `| bytes of the whole set, as JSON, each service of a list counted | ${mib(policyLimits.setBytes)} |`,
  `| routes of a service, their alternatives, names in a map | ${policyLimits.routes}, ${policyLimits.matches}, ${policyLimits.named} |`,
  `| parts of a split, labels of a subset | ${policyLimits.subsets}, ${policyLimits.labels} |`,
  `| rate limits of a service, access rules | ${policyLimits.rateLimits}, ${policyLimits.accessRules} |`,
  `| regular expressions of a section | ${policyLimits.regexes} |`,
  `| entries of other lists | ${policyLimits.list} |`,
];

function mib(bytes: number): string {
  return `${bytes / 1024 / 1024} MiB`;
}

function section(name: string, schema: JsonSchema, example: string): readonly string[] {
  const rows = keyRows(schema, name);
  const table = ['| key | type | default | meaning |', '|---|---|---|---|', ...rows];
  return [
    '',
    `## ${name}`,
    '',
    schema.description ?? '',
    '',
    '```yaml',
    ...example.trimEnd().split('\n'),
    '```',
    ...(rows.length === 0 ? [] : ['', ...table]),
  ];
}

/** Sections of the service that stand in a route as well: described once. */
const ELSEWHERE: ReadonlySet<string> = new Set(['routes[].timeouts', 'routes[].retries']);

function keyRows(schema: JsonSchema, path: string): readonly string[] {
  if (ELSEWHERE.has(path)) return [];
  if (schema.items !== undefined) return keyRows(schema.items, `${path}[]`);
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const at = `${path}.${name}`;
    const required = schema.required?.includes(name) === true && child.default === undefined;
    const fallback =
      child.default === undefined || isMap(child.default)
        ? required
          ? '*required*'
          : ''
        : defaultText(child.default);
    const row = `| \`${at}\` | ${cell(describeType(child))} | ${fallback} | ${cell(child.description ?? '')} |`;
    return [row, ...keyRows(child, at)];
  });
}

function isMap(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function defaultText(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? '' : value.map((one) => `\`${one}\``).join(', ');
  return `\`${String(value)}\``;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
