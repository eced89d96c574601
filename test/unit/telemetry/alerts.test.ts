import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { metrics } from '../../../src/telemetry/definitions.ts';

const RULES = new URL('../../../docs/alerts.yaml', import.meta.url);

test('alert rules are rules, and of metrics and labels that there are', () => {
  const ours = spawnSync('promtool', ['check', 'rules', RULES.pathname], { encoding: 'utf8' });
  expect(ours.error).toBeUndefined();
  expect(`${ours.stdout}${ours.stderr}`).toMatch(/SUCCESS: \d+ rules found/);
  expect(ours.status).toBe(0);
  const labels = new Map(
    Object.values(metrics).map(({ name, labels }) => [name as string, labels as readonly string[]]),
  );
  const used = readFileSync(RULES, 'utf8').matchAll(/(mesh_node_[a-z_]+)(?:\{([a-z_]+)=)?/g);
  for (const [, name = '', label] of used) {
    expect(labels.has(name), name).toBe(true);
    if (label !== undefined) expect(labels.get(name), name).toContain(label);
  }
});
