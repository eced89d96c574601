import { expect, test } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../../src/config/problem.ts';

const text = (...lines: readonly string[]) =>
  ['registries:', '  - type: etcd', ...lines.map((line) => `    ${line}`)].join('\n');

function messages(content: string): string[] {
  try {
    loadConfig({ text: content });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map(formatProblem);
    throw error;
  }
  return [];
}

test('an etcd registry needs its endpoints only', () => {
  const { registries } = loadConfig({ text: text('endpoints: [etcd1.example:2379, "[fd00::1]:2379"]') });
  expect(registries).toEqual([
    {
      type: 'etcd',
      endpoints: ['etcd1.example:2379', '[fd00::1]:2379'],
      prefix: '/mesh-node',
      resyncInterval: 30_000,
      timeout: 5000,
    },
  ]);
});

test.each([
  ['no endpoint', ['endpoints: []'], /endpoints/],
  ['an endpoint without port', ['endpoints: [etcd1.example]'], /expected HOST:PORT, for example/],
  ['a user without password', ['endpoints: ["a:1"]', 'user: u'], /expected user and passwordFile together/],
  ['a password without user', ['endpoints: ["a:1"]', 'passwordFile: /f'], /user and passwordFile together/],
  ['a certificate without key', ['endpoints: ["a:1"]', 'tls: {ca: /a, cert: /b}'], /cert and key together/],
  ['a prefix that ends with /', ['endpoints: ["a:1"]', 'prefix: /mesh/'], /expected a prefix such as/],
  ['no time between comparisons', ['endpoints: ["a:1"]', 'resyncInterval: 1ms'], /duration from 100ms/],
])('%s is refused', (_what, lines, reason) => {
  expect(messages(text(...lines)).join('\n')).toMatch(reason);
});
