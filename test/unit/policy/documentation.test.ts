import { expect, it } from 'vitest';
import { policiesPage, policySchema } from '../../../src/policy/documentation.ts';
import { examples } from '../../../src/policy/examples.ts';
import { sectionNames } from '../../../src/policy/schema/document.ts';
import { content } from './files.ts';

it.each(sectionNames)('shows an example of %s that can be read, complete', (section) => {
  const { policies, origins } = content(examples[section]);
  for (const said of [policies.common, ...Object.values(policies.services)]) {
    const sections = Object.keys(said);
    expect(sections.length === 0 || sections.join() === section).toBe(true);
  }
  expect(Object.values(origins)[0]).toHaveProperty(section);
  expect(policiesPage()).toContain(examples[section]);
});

it('shows examples that make one set', () => {
  const together = sectionNames.map((section) => examples[section]).join('---\n');
  expect(Object.keys(content(together).policies.services['orders']!)).toHaveLength(sectionNames.length - 1);
});

it('tells of every key', () => {
  const page = policiesPage();
  for (const key of [
    'routes[].match[].path.prefix',
    'outlier.latency.atLeast',
    'access.rules[].deny',
    'rateLimits[].rate',
  ])
    expect(page).toContain(`| \`${key}\` |`);
  expect(page).toContain('| `retries.budget.percent` | integer 0–100 | `20` |');
  expect(page).not.toContain('undefined');
});

it('tells editors of short forms', () => {
  const { properties } = JSON.parse(policySchema()) as {
    properties: Record<string, { anyOf?: { enum?: readonly string[]; type?: string }[] }>;
  };
  expect(properties['retries']!.anyOf![0]).toMatchObject({ anyOf: [{ type: 'integer' }, { type: 'null' }] });
  expect(properties['retries']!.anyOf![1]).toMatchObject({ type: 'object', additionalProperties: false });
});
