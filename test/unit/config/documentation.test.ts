import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { configurationPage, configurationSchema, EXAMPLE } from '../../../src/config/documentation.ts';
import { jsonSchema, scalarKeys } from '../../../src/config/keys.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { metricsPage } from '../../../src/telemetry/documentation.ts';

const docs = (name: string): string =>
  readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8');

describe('docs/', () => {
  it.each([
    ['configuration.md', configurationPage],
    ['configuration.schema.json', configurationSchema],
    ['metrics.md', metricsPage],
  ])('%s is what the code says (npm run docs:generate)', (name, page) => {
    expect(docs(name)).toBe(page());
  });

  it('show an example that can be read', () => {
    const config = loadConfig({ text: EXAMPLE.join('\n') });
    expect(config.node.name).toBe('web1');
    expect(config.zones[0]!.gateways).toHaveLength(2);
  });
});

describe('the schema', () => {
  it('has a description for every key', () => {
    const bare: string[] = [];
    const walk = (schema: typeof jsonSchema, path: string): void => {
      for (const [name, child] of Object.entries(schema.properties ?? {})) {
        if (child.const === undefined && (child.description ?? '') === '') bare.push(`${path}${name}`);
        walk(child, `${path}${name}.`);
      }
      for (const one of schema.items?.oneOf ?? []) walk(one, `${path}[].`);
      if (schema.items !== undefined) walk(schema.items, `${path}[].`);
    };
    walk(jsonSchema, '');
    expect(bare).toEqual([]);
  });

  it('gives each setting an environment variable of its own', () => {
    const variables = scalarKeys.map(({ variable }) => variable);
    expect(new Set(variables).size).toBe(variables.length);
    expect(variables).toContain('MESH_NODE_CAPTURE_ALLOW_LIST');
    expect(variables).toContain('MESH_NODE_ZONE_AGENT_MAX_HOPS');
    expect(variables).not.toContain('MESH_NODE_CAPTURE_BRIDGES');
  });
});
