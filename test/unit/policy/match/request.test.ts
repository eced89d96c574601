import { describe, expect, it } from 'vitest';
import type { RequestMatch } from '../../../../src/model/policy.ts';
import { compileRequest, compileRequests } from '../../../../src/policy/match/request.ts';
import { stickyText } from '../../../../src/policy/match/request-view.ts';
import { requestView } from './sample-request.ts';

const view = requestView('GET', '/api/../shop/7?q=a+b&n=%C3%9F&flag&q=2&bad=%zz', {
  host: 'shop.mesh',
  'x-user': 'alice',
  cookie: 'theme="dark"; user=7; user=8; empty=',
});

describe('compileRequest', () => {
  it.each<[RequestMatch, boolean]>([
    [{}, true],
    [{ methods: ['GET', 'HEAD'] }, true],
    [{ methods: ['POST'] }, false],
    [{ methods: ['get'] }, false],
    [{ path: { kind: 'prefix', value: '/shop' } }, true],
    [{ path: { kind: 'prefix', value: '/api' } }, false],
    [{ path: { kind: 'exact', value: '/shop/7' } }, true],
    [{ headers: [{ name: 'x-user', match: { kind: 'exact', value: 'alice' } }] }, true],
    [{ headers: [{ name: 'x-user', match: { kind: 'absent' } }] }, false],
    [{ headers: [{ name: 'x-none', match: { kind: 'absent' } }] }, true],
    [{ cookies: [{ name: 'user', match: { kind: 'exact', value: '7' } }] }, true],
    [{ cookies: [{ name: 'theme', match: { kind: 'exact', value: 'dark' } }] }, true],
    [{ cookies: [{ name: 'empty', match: { kind: 'exact', value: '' } }] }, true],
    [{ cookies: [{ name: 'use', match: { kind: 'present' } }] }, false],
    [{ query: [{ name: 'q', match: { kind: 'exact', value: 'a b' } }] }, true],
    [{ query: [{ name: 'n', match: { kind: 'exact', value: 'ß' } }] }, true],
    [{ query: [{ name: 'flag', match: { kind: 'exact', value: '' } }] }, true],
    [{ query: [{ name: 'bad', match: { kind: 'exact', value: '%zz' } }] }, true],
    [{ query: [{ name: '', match: { kind: 'absent' } }] }, true],
    [{ callers: ['unit:front'] }, true],
    [{ callers: ['unit:back'] }, false],
    [{ methods: ['GET'], callers: ['unit:back'] }, false],
  ])('%j: %s', (match, holds) => expect(compileRequest(match)(view)).toBe(holds));

  it('takes one of several matches, and every request where none is named', () => {
    expect(compileRequests([])(view)).toBe(true);
    expect(compileRequests([{ methods: ['POST'] }, { methods: ['GET'] }])(view)).toBe(true);
    expect(compileRequests([{ methods: ['POST'] }])(view)).toBe(false);
  });
});

it('finds the text of a key', () => {
  expect(stickyText({ kind: 'header', name: 'x-user' }, view)).toBe('alice');
  expect(stickyText({ kind: 'cookie', name: 'user' }, view)).toBe('7');
  expect(stickyText({ kind: 'cookie', name: 'none' }, view)).toBeUndefined();
  expect(stickyText({ kind: 'caller' }, view)).toBe('unit:front.service');
  const unknown = requestView('GET', '/', {}, { program: 'unknown' });
  expect(stickyText({ kind: 'caller' }, unknown)).toBe('10.0.0.9');
});
