import { METHODS } from 'node:http';
import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS } from '../../../src/http1/limits.ts';
import type { RequestHead } from '../../../src/http1/request-head.ts';
import { readRequests } from './record.ts';

function read(text: string): RequestHead | string {
  const { heads, refusal } = readRequests(Buffer.from(text, 'latin1'));
  return refusal ?? heads[0] ?? 'nothing';
}
const line = (first: string): RequestHead | string => read(`${first}\r\nHost: a.example\r\n\r\n`);

describe('request line (RFC 9112, 3)', () => {
  it('has method, target and version', () => {
    expect(line('GET /a?b=c HTTP/1.1')).toMatchObject({
      method: 'GET',
      target: '/a?b=c',
      path: '/a?b=c',
      minor: 1,
    });
    expect(line('M-SEARCH / HTTP/1.0')).toMatchObject({ method: 'M-SEARCH', minor: 0 });
  });

  it.each([
    ['GET  / HTTP/1.1', 'request-line'],
    ['GET / HTTP/1.1 ', 'request-line'],
    ['GET /  HTTP/1.1', 'request-line'],
    ['GET\t/ HTTP/1.1', 'request-line'],
    [' GET / HTTP/1.1', 'request-line'],
    ['GET /', 'request-line'],
    ['GET', 'request-line'],
    ['GET / http/1.1', 'request-line'],
    ['GET / HTTP/1,1', 'request-line'],
    ['GET / HTTPS/1.1', 'request-line'],
    ['GET / HTTP/1.x', 'request-line'],
    ['GET / HTTP/1.11', 'request-line'],
    ['G\0T / HTTP/1.1', 'request-line'],
    ['GET / HTTP/1.1\rX', 'line-end'],
    ['GET / HTTP/0.9', 'version-unsupported'],
    ['GET / HTTP/2.0', 'version-unsupported'],
    ['GET / HTTP/1.2', 'version-unsupported'],
    ['get / HTTP/1.1', 'method-unknown'],
    ['BREW / HTTP/1.1', 'method-unknown'],
    [`${'G'.repeat(40)} / HTTP/1.1`, 'method-unknown'],
    ['GET /\x80 HTTP/1.1', 'target-invalid'],
    ['GET /\0 HTTP/1.1', 'target-invalid'],
    ['GET /a#b HTTP/1.1', 'target-invalid'],
    ['GET /a\tb HTTP/1.1', 'target-invalid'],
  ])('%j is refused: %s', (text, reason) => {
    expect(line(text)).toBe(reason);
  });

  it('needs CR LF', () => {
    expect(read('GET / HTTP/1.1\nHost: a\r\n\r\n')).toBe('line-end');
    expect(read('GET / HTTP/1.1\r\r\nHost: a\r\n\r\n')).toBe('line-end');
    expect(read('GET /\r\nHost: a\r\n\r\n')).toBe('request-line');
  });

  it('may have one empty line before it (RFC 9112, 2.2), not two, and no other', () => {
    expect(read('\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n')).toMatchObject({ method: 'GET', target: '/' });
    expect(read('\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('request-line');
    expect(read('\nGET / HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('request-line');
    expect(read('\rGET / HTTP/1.1\r\nHost: a\r\n\r\n')).toBe('line-end');
  });

  it('takes only methods that node takes, and those of its limits', () => {
    for (const method of METHODS.filter((each) => each !== 'CONNECT')) {
      expect(line(`${method} / HTTP/1.1`)).toMatchObject({ method });
    }
    const limits = { ...DEFAULT_LIMITS, methods: new Set(['BREW']) };
    const { heads } = readRequests(Buffer.from('BREW / HTTP/1.1\r\nHost: a\r\n\r\n'), [], limits);
    expect(heads[0]?.method).toBe('BREW');
  });
});

describe('request target (RFC 9112, 3.2)', () => {
  it.each([
    ['GET /', { form: 'origin', path: '/', authority: 'a.example' }],
    ['GET //x/../y?z', { form: 'origin', path: '//x/../y?z', authority: 'a.example' }],
    ['GET http://b.example/x?y', { form: 'absolute', path: '/x?y', authority: 'b.example', scheme: 'http' }],
    ['GET HTTP://b.example:81', { form: 'absolute', path: '/', authority: 'b.example:81', scheme: 'http' }],
    [
      'GET https://[fd00::1]:443?q',
      { form: 'absolute', path: '/?q', authority: '[fd00::1]:443', scheme: 'https' },
    ],
    ['OPTIONS http://b.example', { form: 'absolute', path: '*', authority: 'b.example' }],
    ['OPTIONS http://b.example?q', { form: 'absolute', path: '/?q' }],
    ['OPTIONS *', { form: 'asterisk', path: '*', target: '*', authority: 'a.example' }],
    ['CONNECT b.example:443', { form: 'authority', path: '', authority: 'b.example:443' }],
    ['CONNECT [::1]:22', { form: 'authority', authority: '[::1]:22' }],
  ])('%s', (first, expected) => {
    expect(line(`${first} HTTP/1.1`)).toMatchObject(expected);
  });

  it.each([
    'GET *',
    'GET ?q',
    'GET a',
    'GET b.example:80',
    'GET ftp://b.example/',
    'GET http:/b.example/',
    'GET http://',
    'GET http:///x',
    'GET http://user@b.example/',
    'GET http://b.example:0/',
    'GET http://b.example:65536/',
    'GET http://b_c!d/',
    'GET http://[::1/',
    'OPTIONS **',
    'CONNECT /',
    'CONNECT *',
    'CONNECT b.example',
    'CONNECT b.example:',
    'CONNECT b.example:443/',
    'CONNECT http://b.example:443',
    'CONNECT :443',
  ])('%s is refused', (first) => {
    expect(line(`${first} HTTP/1.1`)).toBe('target-invalid');
  });
});

describe('Host (RFC 9112, 3.2)', () => {
  const hosts = (...values: string[]): string =>
    `GET / HTTP/1.1\r\n${values.map((value) => `Host: ${value}\r\n`).join('')}\r\n`;

  it.each([
    'a',
    'a.example',
    'a_b-c.d',
    'a.example:8080',
    '10.0.0.1:80',
    '[fd00::1]',
    '[::ffff:10.0.0.1]:80',
  ])('%s names whom the request is for', (value) =>
    expect(read(hosts(value))).toMatchObject({ authority: value }),
  );

  it.each(
    [
      [
        '',
        'a b',
        'a,b',
        'a@b',
        'user:pass@a',
        'a:',
        'a:x',
        'a:0',
        'a:65536',
        'a:080000',
        'a/b',
        'a\\b',
        'a%41',
        'a\xe9',
      ],
      [
        'http://a',
        '[::1',
        '::1',
        '[::1]x',
        '[1.2.3.4]',
        '[fe80::1%eth0]',
        '[v1.x]',
        'a:80:80',
        '[]',
        '*',
        "a'b",
      ],
    ].flat(),
  )('%j is refused', (value) => {
    expect(read(hosts(value))).toBe('host-invalid');
  });

  it('has to be there once, in HTTP/1.1', () => {
    expect(read(hosts())).toBe('host-missing');
    expect(read(hosts('a', 'a'))).toBe('host-repeated');
    expect(read('GET http://b/ HTTP/1.1\r\n\r\n')).toBe('host-missing');
    expect(read('GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n')).toBe('host-repeated');
    expect(read('GET / HTTP/1.0\r\n\r\n')).toMatchObject({ authority: '' });
  });
});
