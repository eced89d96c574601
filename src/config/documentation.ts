import { describeType, type JsonSchema, jsonSchema, scalarKeys } from './keys.ts';

/** docs/configuration.schema.json: for editors, and for tools that write the file. */
export function configurationSchema(): string {
  return `${JSON.stringify(jsonSchema, undefined, 2)}\n`;
}

/** docs/configuration.md. */
export function configurationPage(): string {
  const sections = Object.entries(jsonSchema.properties ?? {});
  return [
    '<!-- Made from src/config/schema.ts by `npm run docs:generate`; do not edit. -->',
    '',
    '# Configuration',
    '',
    'One file, `/etc/mesh-node/mesh-node.yaml`, in YAML 1.2. Every setting has a default, so an empty file, or none, is a',
    'working configuration. Another file is named by `--config FILE` or `MESH_NODE_CONFIG`, and must then exist.',
    '',
    'It is read strictly: a key that is not known, a value of another type or out of its range, a key given twice or a tag',
    'is an error, and all errors are told at once, each with line, column, what was found and what was expected.',
    '`mesh-node validate FILE` does only that. [configuration.schema.json](configuration.schema.json) tells editors the same.',
    '',
    'Settings with one value can also come from the environment (`MESH_NODE_CAPTURE_MODE=all`) or from a flag',
    '(`--set capture.mode=all`, repeatable). A flag wins over the environment, and that over the file. An environment',
    'variable that begins with `MESH_NODE_` and is no setting is an error.',
    '',
    'A *duration* is a number with `ms`, `s`, `m` or `h`, at most `576h`. A *size* is a number with `B`, `KiB`, `MiB` or',
    '`GiB`.',
    '',
    '## An example',
    '',
    '```yaml',
    ...EXAMPLE,
    '```',
    ...sections.flatMap(([name, schema]) => section(name, schema)),
    '',
    '## Environment variables',
    '',
    '| variable | setting |',
    '|---|---|',
    '| `MESH_NODE_CONFIG` | path of the file, like `--config` |',
    ...scalarKeys.map(({ variable, path }) => `| \`${variable}\` | \`${path.join('.')}\` |`),
    '',
  ].join('\n');
}

/** The file of a host in one of two zones; a test reads it with the loader. */
export const EXAMPLE: readonly string[] = [
  'node:',
  '  name: web1',
  '  zone: dc1',
  '  callAs: shop',
  'capture:',
  '  mode: services',
  '  bridges: [docker0]',
  'registries:',
  '  - type: file',
  '    directory: /etc/mesh-node/catalogue.d',
  '  - type: serf',
  '    address: 127.0.0.1:7373',
  'zones:',
  '  - name: dc2',
  '    gateways:',
  '      - {node: gw1.dc2, address: "192.0.2.10:15008"}',
  '      - {node: gw2.dc2, address: "[2001:db8::11]:15008"}',
  'telemetry:',
  '  accessLog: /var/log/mesh-node/access.log',
];

function section(name: string, schema: JsonSchema): readonly string[] {
  const head = ['', `## ${name}`, '', schema.description ?? ''];
  if (schema.properties !== undefined) return [...head, '', ...keyTable(schema, `${name}.`)];
  const { items } = schema;
  const kinds = items?.oneOf ?? (items?.properties === undefined ? [] : [items]);
  const tables = kinds.flatMap((kind) => {
    const type = kind.properties?.['type']?.const;
    const title = type === undefined ? ['', 'A list of:'] : ['', `### type: ${type}`];
    return [...title, '', ...keyTable(kind, `${name}[].`)];
  });
  return [...head, '', `Default: \`${JSON.stringify(schema.default)}\`.`, ...tables];
}

function keyTable(schema: JsonSchema, prefix: string): readonly string[] {
  return ['| key | type | default | meaning |', '|---|---|---|---|', ...keyRows(schema, prefix)];
}

function keyRows(schema: JsonSchema, prefix: string): readonly string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    if (child.const !== undefined) return [];
    const required = schema.required?.includes(name) === true && child.default === undefined;
    const fallback =
      child.default === undefined ? (required ? '*required*' : '') : `\`${defaultText(child.default)}\``;
    const row = `| \`${prefix}${name}\` | ${cell(describeType(child))} | ${fallback} | ${cell(child.description ?? '')} |`;
    const inner = child.items?.properties === undefined ? [] : keyRows(child.items, `${prefix}${name}[].`);
    return [row, ...inner];
  });
}

function defaultText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
