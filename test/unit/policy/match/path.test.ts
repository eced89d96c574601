import { describe, expect, it } from 'vitest';
import { MAX_UNCLEAR_PATH, normalForm, pathReadings, plainPath } from '../../../../src/policy/match/path.ts';
import { MAX_REGEX_INPUT } from '../../../../src/policy/match/text.ts';

describe('normalForm', () => {
  it.each([
    ['/a/b', '/a/b'],
    ['/%61%2d%7e', '/a-~'],
    ['/a%2fb%5cc%3bd%2be', '/a%2Fb%5Cc%3Bd%2Be'],
    ['/a b', '/a%20b'],
    ['/straße', '/stra%C3%9Fe'],
    ['/stra%c3%9fe', '/stra%C3%9Fe'],
    ['/{id}|"', '/%7Bid%7D%7C%22'],
    ['/100%', '/100%25'],
    ['/%zz', '/%25zz'],
    ['/\u{1f600}', '/%F0%9F%98%80'],
    ['/a;b+c\\d', '/a;b+c\\d'],
    ['*', '*'],
    ['', ''],
  ])('%s → %s', (path, normal) => {
    expect(normalForm(path)).toBe(normal);
    expect(normalForm(normal)).toBe(normal);
  });
});

describe('plainPath', () => {
  it.each([
    ['/a//b', '/a/b'],
    ['//admin', '/admin'],
    ['/a/./b', '/a/b'],
    ['/a/../admin', '/admin'],
    ['/a/%2e%2E/admin', '/admin'],
    ['/../../admin', '/admin'],
    ['/a/b/..', '/a/'],
    ['/a/.', '/a/'],
    ['/.well-known/x', '/.well-known/x'],
    ['/a..b/...', '/a..b/...'],
    ['/%61dmin', '/admin'],
    ['/a%2fb', '/a%2Fb'],
  ])('%s → %s', (path, plain) => expect(plainPath(path)).toBe(plain));
});

describe('pathReadings', () => {
  it('has one for a path that nobody can misread', () => {
    expect(pathReadings('/orders/7/items')).toEqual(['/orders/7/items']);
    expect(pathReadings('*')).toEqual(['*']);
    expect(pathReadings('')).toEqual(['']);
  });

  it.each([
    '/a/../admin/x',
    '//admin/x',
    '/./admin/x',
    '/%61dmin/x',
    '/%2e/admin/x',
    '/a/%2e%2e/admin/x',
    '/a/.%2e/admin/x',
    '/admin%2fx',
    '/admin%2Fx',
    '/a%2f..%2fadmin/x',
    '/a/..%2fadmin/x',
    '/a/..;/admin/x',
    '/a/..;v=1/admin/x',
    '/admin;v=1/x',
    '/;/admin/x',
    '\\admin\\x',
    '/a\\..\\admin\\x',
    '/a/..%5cadmin%5cx',
    '/a/%252e%252e/admin/x',
    '/%2561dmin/x',
    '/admin%252fx',
    '/admin%25252fx',
    '/admin//../../admin/x',
    '/admin/x//../../x/y/../..',
  ])('has one that is below /admin for %s', (path) => {
    const readings = pathReadings(path.startsWith('/') ? path : `/${path}`)!;
    expect(readings.some((reading) => reading === '/admin' || reading.startsWith('/admin/'))).toBe(true);
  });

  it.each([
    // Merged first, it leads elsewhere; not merged, it stays below /admin.
    ['/admin//../x', '/admin/x'],
    ['/admin//../x', '/x'],
    // Decoded once only, and as far as it goes.
    ['/admin%2Fx%252F..%2F..%2Fpublic', '/admin/public'],
    ['/admin%2Fx%252F..%2F..%2Fpublic', '/public'],
    // As it was written.
    ['/admin/../x', '/admin/../x'],
    // In other orders: dots and then separators, dots and then slashes, dots and then parameters.
    ['/x%2Fy/../admin%2Fz', '/admin/z'],
    ['/admin//../secret//x', '/admin/secret/x'],
    ['/a/b/..;/../admin;x', '/a/b/admin'],
  ])('tells for %s of %s', (path, reading) => expect(pathReadings(path)).toContain(reading));

  it.each([
    ['NUL', '/admin%00.txt'],
    ['NUL, encoded twice', '/admin%252500'],
    ['NUL, encoded digit by digit', '/admin%25%30%30x'],
    ['malformed encoding', '/admin%2'],
    ['malformed encoding', '/%zz'],
    ['encoding without end', `/%${'25'.repeat(8)}2e`],
    ['length', `/a//${'x'.repeat(MAX_UNCLEAR_PATH)}`],
    ['more than expressions are tried on', `/admin/${'x'.repeat(MAX_REGEX_INPUT)}`],
    ['what is tangled', `/${'a%2F..//b;x/..;/%252E%252E%5C'.repeat(20)}`],
  ])('knows nothing: %s', (_why, path) => expect(pathReadings(path)).toBeUndefined());
});
