import { describe, expect, it } from 'vitest';
import { formatProblem } from '../../../src/config/problem.ts';
import { Policies } from '../../../src/model/policy.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { policyLimits } from '../../../src/policy/limits.ts';
import { readPolicies } from '../../../src/policy/reading.ts';
import { content, files, problems } from './files.ts';

const refused = (texts: Readonly<Record<string, string>>) => {
  const reading = readPolicies(files(texts));
  return 'problems' in reading ? reading.problems.map(formatProblem) : [];
};

describe('documents', () => {
  it('of several files make one set, each section with its place', () => {
    const { policies, origins } = content(
      '# nothing but a comment\n',
      "service: '*'\nhops: two\nretries: 2\n---\nservices: [web, api]\nretries: 0\n",
      'service: web\n\nbalance: peak-ewma\n',
    );
    expect(origins).toEqual({
      '*': { hops: '/p/1.yaml:2', retries: '/p/1.yaml:3' },
      web: { retries: '/p/1.yaml:6', balance: '/p/2.yaml:3' },
      api: { retries: '/p/1.yaml:6' },
    });
    const set = new Policies({ version: 1, ...policies });
    const web = set.for('web' as ServiceName);
    expect(web).toMatchObject({ hops: 'two', retries: { attempts: 0 }, balance: { algorithm: 'peak-ewma' } });
    expect(set.for('api' as ServiceName).balance).toBeUndefined();
    expect(set.for('other' as ServiceName).retries?.attempts).toBe(2);
  });

  it('are about services of any name', () => {
    const { policies } = content('services: [constructor, tostring]\nhops: two');
    expect(Object.keys(policies.services)).toEqual(['constructor', 'tostring']);
  });

  it('say each section of a service once: both places are named', () => {
    expect(
      refused({
        'a.yaml': 'service: web\nhops: two\n',
        'b.yaml': 'services: [api, web]\nretries: 1\nhops: two\n',
      }),
    ).toEqual([
      '/p/b.yaml:3:1: hops: found hops of web, which /p/a.yaml:2 has already, expected each section of a service once',
    ]);
    // The rest of the services and one of them are no contradiction.
    expect(refused({ a: "service: '*'\nhops: two", b: 'service: web\nhops: three' })).toEqual([]);
  });

  it('are refused all together, and every mistake is told', () => {
    expect(refused({ a: 'service: web\nhops: two', b: 'service: x', c: 'service: web\nhopps: 1' })).toEqual([
      expect.stringContaining('/p/b:1:1: found a map, expected one of routes, retries'),
      expect.stringMatching(/^\/p\/c:2:1: hopps: found a key that is not known.*did you mean hops\?\)$/),
    ]);
  });

  it.each([
    ['', 'found an empty file, expected a document'],
    ['hops: two', '1:1: found a map, expected either service or services'],
    ['service: web\nservices: [api]\nhops: two', '1:1: found a map, expected either service or services'],
    ['service: Web\nhops: two', '1:10: service: found text "Web", expected a service name'],
    ["services: [web, '*']\nhops: two", '1:17: services[1]: found text "*", expected a service name'],
    ['services: [web, web]\nhops: two', '1:17: services[1]: found text "web", expected each service once'],
    ['services: []\nhops: two', 'services: found 0 entries, expected at least 1 entries'],
    ['- service: web', '1:1: found a list, expected map'],
    ['service: web\nhops: two\nhops: two', '3:1: found "hops" again, expected each key once'],
    ['service: web\nhops: !x two', 'expected plain YAML without tags'],
    ['service: web\n\thops: two', 'expected spaces for indentation, not tabs'],
    ['service: web\nhops: two\n---\nservice: [', '4:1'],
    [
      'service: web\nhops: two\n---\nservice: api\nhops: one',
      '5:7: hops: found text "one", expected two or three',
    ],
    [`service: web\nroutes: ${'['.repeat(100)}`, 'expected at most 64 levels'],
    [
      `a: &a [${'x,'.repeat(20)}]\nb: &b [${'*a,'.repeat(20)}]\nc: [${'*b,'.repeat(20)}]`,
      'found YAML that cannot be read, expected plain YAML (Excessive alias count',
    ],
  ])('%j is refused', (text, problem) => {
    expect(problems(text).join('\n')).toContain(problem);
  });

  it('tell a bounded number of problems', () => {
    expect(
      problems(`service: web\n${Array.from({ length: 5000 }, (_, i) => `k${i}: 1\n`).join('')}`),
    ).toHaveLength(20);
    const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`${i}`, 'a: 1\nb: 1\nc: 1\nd: 1']));
    expect(refused(many)).toHaveLength(100);
  });
});

describe('bounds', () => {
  it('hold for bytes of a file and documents in it', () => {
    expect(problems(`#${'x'.repeat(policyLimits.fileBytes)}`)).toEqual([
      `found ${policyLimits.fileBytes + 1} bytes, expected at most ${policyLimits.fileBytes}`,
    ]);
    expect(problems('--- {}\n'.repeat(policyLimits.documents + 1))).toEqual([
      `found ${policyLimits.documents + 1} documents, expected at most ${policyLimits.documents}`,
    ]);
  });

  it('hold for regular expressions of a section', () => {
    const rules = (paths: number) =>
      `service: web\naccess:\n  rules:\n${`    - {allow: "*", paths: [${Array(paths).fill('{regex: a}').join()}]}\n`.repeat(4)}`;
    expect(problems(rules(policyLimits.regexes / 4))).toEqual([]);
    expect(problems(rules(policyLimits.regexes / 4 + 1))).toEqual([
      expect.stringContaining(`at most ${policyLimits.regexes} regular expressions`),
    ]);
  });

  it('hold for what a list of services unfolds to', () => {
    const services = Array.from({ length: 1000 }, (_, i) => `s${i}`).join(', ');
    const rules = Array.from({ length: 200 }, (_, i) => `{allow: 'service:caller-number-${i}'}`).join(', ');
    expect(problems(`services: [${services}]\naccess: {rules: [${rules}]}`)).toEqual([
      `2:1: found more than ${policyLimits.setBytes} bytes of policies in all, each service on its own, expected less`,
    ]);
  });

  it.each([
    ['routes', policyLimits.routes, (i: number) => `{name: r${i}}`],
    ['rateLimits', policyLimits.rateLimits, (i: number) => `{name: r${i}, rate: 1/s}`],
  ])('hold for %s', (section, most, one) => {
    const list = (length: number) => Array.from({ length }, (_, i) => one(i)).join(', ');
    expect(problems(`service: web\n${section}: [${list(most)}]`)).toEqual([]);
    expect(problems(`service: web\n${section}: [${list(most + 1)}]`).join('\n')).toContain(
      `found ${most + 1} entries, expected at most ${most} entries`,
    );
  });
});
