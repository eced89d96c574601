import { describe, expect, it } from 'vitest';
import type { TextMatch } from '../../../../src/model/policy.ts';
import { compilePath } from '../../../../src/policy/match/path-matcher.ts';
import { compileText, MAX_REGEX, MAX_REGEX_INPUT, regexProblem } from '../../../../src/policy/match/text.ts';

describe('compileText', () => {
  it.each<[TextMatch, string | undefined, boolean]>([
    [{ kind: 'exact', value: 'a' }, 'a', true],
    [{ kind: 'exact', value: 'a' }, 'A', false],
    [{ kind: 'exact', value: '' }, undefined, false],
    [{ kind: 'prefix', value: 'ab' }, 'abc', true],
    [{ kind: 'prefix', value: 'ab' }, 'a', false],
    [{ kind: 'prefix', value: '' }, undefined, false],
    [{ kind: 'regex', value: 'b+' }, 'abbc', true],
    [{ kind: 'regex', value: '^b+$' }, 'abbc', false],
    [{ kind: 'regex', value: '(?i)CANARY' }, 'canary', true],
    [{ kind: 'regex', value: '.*' }, undefined, false],
    [{ kind: 'regex', value: '(' }, '(', false],
    [{ kind: 'present' }, '', true],
    [{ kind: 'present' }, undefined, false],
    [{ kind: 'absent' }, undefined, true],
    [{ kind: 'absent' }, '', false],
  ])('%j on %j: %s', (match, text, holds) => expect(compileText(match)(text)).toBe(holds));

  it('tries no regular expression on a text that is too long', () => {
    const matches = compileText({ kind: 'regex', value: 'a' });
    expect(matches('a'.repeat(MAX_REGEX_INPUT))).toBe(true);
    expect(matches('a'.repeat(MAX_REGEX_INPUT + 1))).toBe(false);
  });
});

describe('regexProblem', () => {
  it.each(['a', '^/api/v[0-9]+/.*\\.json$', '(a+)+$', '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '(?i)x'])(
    'takes %s',
    (regex) => expect(regexProblem(regex)).toBeUndefined(),
  );

  it.each([
    ['(', /parenthesis|closing/],
    ['(?=a)', /invalid/],
    ['\\1', /invalid/],
    ['(a{1000}){1000}', /repeat/],
    ['[ab]{900}', /large/],
    ['a'.repeat(MAX_REGEX + 1), /1024/],
  ])('says why not %s', (regex, why) => expect(regexProblem(regex)).toMatch(why));
});

describe('compilePath', () => {
  it.each<[TextMatch, string, boolean]>([
    [{ kind: 'prefix', value: '/api' }, '/api', true],
    [{ kind: 'prefix', value: '/api' }, '/api/x', true],
    [{ kind: 'prefix', value: '/api' }, '/apis', false],
    [{ kind: 'prefix', value: '/api/' }, '/api', true],
    [{ kind: 'prefix', value: '/api/' }, '/api/x', true],
    [{ kind: 'prefix', value: '/api/' }, '/apis', false],
    [{ kind: 'prefix', value: '/' }, '/x', true],
    [{ kind: 'prefix', value: '/' }, '*', false],
    [{ kind: 'prefix', value: '/straße' }, '/stra%C3%9Fe/x', true],
    [{ kind: 'exact', value: '/a b' }, '/a%20b', true],
    [{ kind: 'exact', value: '/a' }, '/a/', false],
    [{ kind: 'exact', value: '*' }, '*', true],
    [{ kind: 'regex', value: '^/v[0-9]+/' }, '/v2/x', true],
  ])('%j on %s: %s', (match, path, holds) => expect(compilePath(match)(path)).toBe(holds));
});
