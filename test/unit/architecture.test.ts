import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const configFile = join(root, '.dependency-cruiser.json');
const depcruise = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs');

interface CruiseResult {
  readonly modules: readonly { readonly source: string }[];
  readonly summary: {
    readonly violations: readonly { readonly rule: { readonly name: string }; readonly from: string }[];
  };
}

function cruise(directory: string): CruiseResult {
  const args = [
    depcruise,
    'src',
    '--config',
    join(directory, '.dependency-cruiser.json'),
    '--output-type',
    'json',
  ];
  return JSON.parse(
    execFileSync(process.execPath, args, { cwd: directory, maxBuffer: 256 * 1024 * 1024, encoding: 'utf8' }),
  ) as CruiseResult;
}

const rules = (
  JSON.parse(readFileSync(configFile, 'utf8')) as { readonly forbidden: readonly { readonly name: string }[] }
).forbidden.map(({ name }) => name);

describe('layers of src/', () => {
  it('hold, and every file was looked at', () => {
    const { modules, summary } = cruise(root);
    const seen = new Set(modules.map(({ source }) => source));
    const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => `src/${name}`);
    expect(files.length).toBeGreaterThan(0);
    expect(files.filter((file) => !seen.has(file))).toEqual([]);
    expect(summary.violations.map(({ rule, from }) => `${rule.name}: ${from}`)).toEqual([]);
  }, 60_000);
});

/** For each rule, one import that it must catch: [importing file, imported module]. */
const wrong: Readonly<Record<string, readonly (readonly [from: string, to: string])[]>> = {
  'no-circular': [
    ['src/tunnel/a.ts', './b.ts'],
    ['src/tunnel/b.ts', './a.ts'],
  ],
  'model-is-pure': [
    ['src/model/a.ts', 'node:fs'],
    ['src/model/b.ts', '../io/ok.ts'],
  ],
  'io-above-model-only': [['src/io/a.ts', '../config/ok.ts']],
  'http1-is-pure': [
    ['src/http1/a.ts', 'node:fs'],
    ['src/http1/b.ts', '../io/ok.ts'],
  ],
  'config-above-model-only': [['src/config/a.ts', '../telemetry/ok.ts']],
  'policy-above-model-only': [['src/policy/a.ts', '../telemetry/ok.ts']],
  'telemetry-above-model-only': [['src/telemetry/a.ts', '../config/ok.ts']],
  'stages-are-siblings': [
    ['src/capture/a.ts', '../route/ok.ts'],
    ['src/registry/a.ts', '../cache/ok.ts'],
    ['src/zone/a.ts', '../tunnel/ok.ts'],
    ['src/identity/a.ts', '../proxy/ok.ts'],
  ],
  'proxy-below-daemon': [
    ['src/proxy/a.ts', '../daemon/ok.ts'],
    ['src/proxy/b.ts', '../admin/ok.ts'],
    ['src/proxy/d.ts', '../http/ok.ts'],
    ['src/proxy/e.ts', '../resp/ok.ts'],
  ],
  'http-above-proxy': [
    ['src/http/a.ts', '../daemon/ok.ts'],
    ['src/http/b.ts', '../tunnel/ok.ts'],
  ],
  'resp-above-proxy': [
    ['src/resp/a.ts', '../http/ok.ts'],
    ['src/resp/b.ts', '../daemon/ok.ts'],
  ],
  'daemon-and-admin-below-cli': [
    ['src/daemon/a.ts', '../cli/ok.ts'],
    ['src/admin/a.ts', '../main.ts'],
  ],
  'admin-apart-from-daemon': [
    ['src/admin/b.ts', '../daemon/ok.ts'],
    ['src/admin/c.ts', '../capture/ok.ts'],
    ['src/admin/d.ts', '../http/ok.ts'],
  ],
  'poller-has-one-room': [['src/proxy/c.ts', 'koffi']],
};

describe('the rules themselves', () => {
  const fixture = mkdtempSync(join(tmpdir(), 'mncli-architecture-'));
  let caught: ReadonlySet<string>;
  beforeAll(() => {
    const rooms = [
      'model',
      'io',
      'http1',
      'config',
      'telemetry',
      'capture',
      'registry',
      'cache',
      'route',
      'balance',
      'tunnel',
    ];
    for (const room of [...rooms, 'zone', 'identity', 'proxy', 'http', 'resp', 'daemon', 'admin', 'cli']) {
      mkdirSync(join(fixture, 'src', room), { recursive: true });
      writeFileSync(join(fixture, 'src', room, 'ok.ts'), 'export const ok = 1;\n');
    }
    writeFileSync(join(fixture, 'src/main.ts'), 'export const main = 1;\n');
    for (const [from, to] of Object.values(wrong).flat()) {
      const file = join(fixture, from);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, `import '${to}';\nexport const here = 1;\n`);
    }
    for (const name of ['.dependency-cruiser.json', 'tsconfig.json', 'package.json']) {
      cpSync(join(root, name), join(fixture, name));
    }
    symlinkSync(join(root, 'node_modules'), join(fixture, 'node_modules'));
    caught = new Set(cruise(fixture).summary.violations.map(({ rule, from }) => `${rule.name}: ${from}`));
  }, 60_000);
  afterAll(() => rmSync(fixture, { recursive: true }));

  it('each have an import here that they must catch', () => {
    expect(Object.keys(wrong).toSorted()).toEqual(rules.toSorted());
  });

  it.each(
    Object.entries(wrong).flatMap(([rule, imports]) =>
      imports.map(([from, to]) => [rule, from, to] as const),
    ),
  )('%s catches %s → %s', (rule, from) => {
    // A circle is reported once, on whichever of its files comes first.
    const from2 = rule === 'no-circular' ? from.replace(/[ab]\.ts$/, '') : from;
    expect([...caught].some((one) => one.startsWith(`${rule}: ${from2}`))).toBe(true);
  });

  it('find nothing wrong in a module that imports nothing', () => {
    expect([...caught].filter((one) => one.includes('ok.ts'))).toEqual([]);
  });
});
