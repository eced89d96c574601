import { describe, expect, it } from 'vitest';
import { MAX_CONNECTION_OPTIONS } from '../../../src/http1/limits.ts';
import type { RequestHead } from '../../../src/http1/request-head.ts';
import { readRequests, readResponse } from './record.ts';

function read(lines: string, first = 'GET / HTTP/1.1'): RequestHead | string {
  const { heads, refusal } = readRequests(Buffer.from(`${first}\r\nHost: a\r\n${lines}\r\n`, 'latin1'));
  return refusal ?? heads[0]!;
}

describe('keep-alive (RFC 9112, 9.3)', () => {
  it.each([
    ['GET / HTTP/1.1', '', true],
    ['GET / HTTP/1.1', 'Connection: close\r\n', false],
    ['GET / HTTP/1.1', 'connection: CLOSE\r\n', false],
    ['GET / HTTP/1.1', 'Connection: x, close\r\n', false],
    ['GET / HTTP/1.1', 'Connection: x\r\nConnection: close\r\n', false],
    ['GET / HTTP/1.1', 'Connection: keep-alive, close\r\n', false],
    ['GET / HTTP/1.1', 'Connection: closed\r\n', true],
    ['GET / HTTP/1.0', '', false],
    ['GET / HTTP/1.0', 'Connection: Keep-Alive\r\n', true],
    ['GET / HTTP/1.0', 'Connection: keep-alive, close\r\n', false],
  ])('%s %j: %s', (first, lines, keepAlive) => {
    expect(read(lines, first)).toMatchObject({ keepAlive });
  });

  it('of an answer needs an end of its own', () => {
    const alive = (text: string, method = 'GET'): boolean =>
      readResponse(Buffer.from(text), { method, upgrade: undefined }, [], false).heads[0]!.keepAlive;
    expect(alive('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')).toBe(true);
    expect(alive('HTTP/1.1 200 OK\r\n\r\n')).toBe(false);
    expect(alive('HTTP/1.1 200 OK\r\n\r\n', 'HEAD')).toBe(true);
    expect(alive('HTTP/1.1 200 OK\r\n\r\n', 'CONNECT')).toBe(false);
    expect(alive('HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n')).toBe(false);
    expect(alive('HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n')).toBe(true);
  });
});

describe('Connection (RFC 9110, 7.6.1)', () => {
  it.each(['a b', 'a;b', 'close;', '"close"', 'a,\tb', 'close\t', 'caf\xe9', 'close\xa0', 'a/b'])(
    '%j is refused',
    (value) => {
      expect(read(`Connection: ${value}\r\n`)).toBe('connection-invalid');
    },
  );

  it('may have empty members, and a bounded number of options', () => {
    expect(read('Connection:\r\n')).toMatchObject({ keepAlive: true });
    expect(read('Connection: , ,close,\r\n')).toMatchObject({ keepAlive: false });
    const options = (count: number): string =>
      Array.from({ length: count }, (_, index) => `x${index}`).join();
    expect(read(`Connection: ${options(MAX_CONNECTION_OPTIONS)}\r\n`)).toMatchObject({ keepAlive: true });
    expect(read(`Connection: ${options(MAX_CONNECTION_OPTIONS + 1)}\r\n`)).toBe('connection-invalid');
    expect(read(`Connection: ${options(MAX_CONNECTION_OPTIONS)}\r\nConnection: y\r\n`)).toBe(
      'connection-invalid',
    );
  });
});

describe('Upgrade (RFC 9110, 7.8)', () => {
  const upgrade = (lines: string, first?: string): unknown => {
    const head = read(lines, first);
    return typeof head === 'string' ? head : head.upgrade;
  };

  it.each([
    ['Connection: upgrade\r\nUpgrade: websocket\r\n', 'websocket'],
    ['Connection: keep-alive, Upgrade\r\nUpgrade: h2c, TLS/1.0\r\n', 'h2c, TLS/1.0'],
    ['Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n', 'a, b'],
    ['Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n', 'websocket'],
    ['Upgrade: websocket\r\n', undefined],
    ['Connection: upgrade\r\n', undefined],
    ['Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n', undefined],
    ['Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n', undefined],
    ['Connection: upgrade\r\nUpgrade: a b\r\n', 'upgrade-invalid'],
    ['Connection: upgrade\r\nUpgrade: a/b/c\r\n', 'upgrade-invalid'],
    ['Connection: upgrade\r\nUpgrade:\r\n', 'upgrade-invalid'],
    ['Connection: upgrade\r\nUpgrade: a\xa0\r\n', 'upgrade-invalid'],
    [`Connection: upgrade\r\nUpgrade: ${'a,'.repeat(16)}a\r\n`, 'upgrade-invalid'],
  ])('%j: %s', (lines, expected) => {
    expect(upgrade(lines)).toBe(expected);
  });

  it('means nothing in HTTP/1.0', () => {
    expect(upgrade('Connection: upgrade\r\nUpgrade: websocket\r\n', 'GET / HTTP/1.0')).toBeUndefined();
  });
});

describe('Expect and TE', () => {
  it('know 100-continue only, and nothing in HTTP/1.0 (RFC 9110, 10.1.1)', () => {
    expect(read('Expect: 100-Continue\r\n')).toMatchObject({ expectsContinue: true });
    expect(read('')).toMatchObject({ expectsContinue: false });
    expect(read('Expect: 200-ok\r\n')).toBe('expectation-unknown');
    expect(read('Expect: 100-continue\r\nExpect: x\r\n')).toBe('expectation-unknown');
    expect(read('Expect: x\r\n', 'GET / HTTP/1.0')).toMatchObject({ expectsContinue: false });
  });

  it('finds trailers in TE (RFC 9110, 10.1.4)', () => {
    expect(read('TE: trailers\r\n')).toMatchObject({ takesTrailers: true });
    expect(read('TE: gzip;q=0.5 , Trailers\r\n')).toMatchObject({ takesTrailers: true });
    expect(read('TE: trailers2\r\n')).toMatchObject({ takesTrailers: false });
  });
});
