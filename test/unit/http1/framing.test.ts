import { describe, expect, it } from 'vitest';
import { readRequests, readResponse } from './record.ts';

/** What is read of a request: kind of framing and length, or why it is refused. */
function request(lines: string, first = 'POST / HTTP/1.1'): unknown {
  const { heads, refusal } = readRequests(Buffer.from(`${first}\r\nHost: a\r\n${lines}\r\n`, 'latin1'));
  return refusal ?? heads[0]!.framing;
}
const none = { kind: 'none' };
const chunked = { kind: 'chunked' };
const length = (bytes: number): unknown => ({ kind: 'length', length: bytes });

describe('content of a request (RFC 9112, 6)', () => {
  it.each([
    ['', none],
    ['Content-Length: 0\r\n', length(0)],
    ['content-length: 42\r\n', length(42)],
    ['Content-Length:007  \r\n', length(7)],
    ['Content-Length: 9007199254740991\r\n', length(Number.MAX_SAFE_INTEGER)],
    ['Transfer-Encoding: chunked\r\n', chunked],
    ['TRANSFER-ENCODING:CHUNKED\r\n', chunked],
  ])('%j', (lines, framing) => {
    expect(request(lines)).toEqual(framing);
  });

  it.each(
    [
      [
        '',
        '+1',
        '-1',
        '1 1',
        '1,1',
        '1, 1',
        '0x10',
        '1e3',
        '1.0',
        '1;',
        '"1"',
        '1\t',
        '٣',
        '9007199254740992',
        '1'.repeat(17),
      ],
    ].flat(),
  )('Content-Length %j is refused', (value) => {
    expect(request(`Content-Length: ${value}\r\n`)).toBe('length-invalid');
  });

  it.each([
    ['Content-Length: 1\r\nContent-Length: 2\r\n', 'length-repeated'],
    ['Content-Length: 1\r\nContent-Length: 1\r\n', 'length-repeated'],
    ['Content-Length: 0\r\ncontent-length: 0\r\n', 'length-repeated'],
    ['Content-Length: 1\r\nTransfer-Encoding: chunked\r\n', 'length-and-coding'],
    ['Transfer-Encoding: chunked\r\nContent-Length: 1\r\n', 'length-and-coding'],
    ['Transfer-Encoding: chunked\r\nContent-Length: 0\r\n', 'length-and-coding'],
    ['Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', 'coding-repeated'],
    ['Transfer-Encoding: chunked, chunked\r\n', 'coding-repeated'],
    ['Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', 'coding-repeated'],
    ['Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: gzip, chunked\r\n', 'coding-unknown'],
    ['Transfer-Encoding: chunked, gzip\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: gzip\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: identity\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding:\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: xchunked\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: chunked;q=1\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: "chunked"\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: chunked,\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: \tchunked\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: chunked\t\r\n', 'coding-not-chunked'],
    ['Transfer-Encoding: \x0bchunked\r\n', 'field-value'],
    ['Transfer-Encoding : chunked\r\n', 'field-name'],
    ['Transfer-Encoding\r\n: chunked\r\n', 'field-name'],
  ])('%j is refused: %s', (lines, reason) => {
    expect(request(lines)).toBe(reason);
  });

  it('knows no transfer coding in HTTP/1.0', () => {
    expect(request('Transfer-Encoding: chunked\r\n', 'POST / HTTP/1.0')).toBe('coding-version');
    expect(request('Content-Length: 1\r\n', 'POST / HTTP/1.0')).toEqual(length(1));
  });

  it.each(['CONNECT a:1', 'TRACE /'])('is not there for %s', (first) => {
    expect(request('Content-Length: 1\r\n', `${first} HTTP/1.1`)).toBe('content-unexpected');
    expect(request('Transfer-Encoding: chunked\r\n', `${first} HTTP/1.1`)).toBe('content-unexpected');
    expect(request('', `${first} HTTP/1.1`)).toEqual(none);
    expect(typeof request('Content-Length: 0\r\n', `${first} HTTP/1.1`)).toBe('object');
  });
});

describe('content of an answer (RFC 9112, 6.3)', () => {
  const read = (first: string, lines: string, method = 'GET', content = ''): unknown => {
    const bytes = Buffer.from(`${first}\r\n${lines}\r\n${content}`, 'latin1');
    const { heads, refusal } = readResponse(bytes, { method, upgrade: undefined }, [], false);
    return refusal ?? heads[0]!.framing;
  };

  it.each([
    ['HTTP/1.1 200 OK', '', 'GET', { kind: 'close' }],
    ['HTTP/1.0 200 OK', '', 'GET', { kind: 'close' }],
    ['HTTP/1.1 200 OK', 'Content-Length: 3\r\n', 'GET', length(3)],
    ['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked\r\n', 'GET', chunked],
    ['HTTP/1.1 200 OK', 'Content-Length: 3\r\n', 'HEAD', none],
    ['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked\r\n', 'HEAD', none],
    ['HTTP/1.1 200 OK', '', 'HEAD', none],
    ['HTTP/1.1 204 No Content', '', 'GET', none],
    ['HTTP/1.1 204 No Content', 'Content-Length: 0\r\n', 'GET', none],
    ['HTTP/1.1 304 Not Modified', 'Content-Length: 3\r\n', 'GET', none],
    ['HTTP/1.1 100 Continue', '', 'POST', none],
    ['HTTP/1.1 200 OK', '', 'CONNECT', { kind: 'opaque' }],
    ['HTTP/1.1 200 OK', 'Content-Length: 3\r\n', 'CONNECT', { kind: 'opaque' }],
    ['HTTP/1.1 407 No', 'Content-Length: 3\r\n', 'CONNECT', length(3)],
  ])('%s %j to %s', (first, lines, method, framing) => {
    expect(read(first, lines, method)).toEqual(framing);
  });

  it.each([
    ['HTTP/1.1 204 No Content', 'Content-Length: 3\r\n', 'content-unexpected'],
    ['HTTP/1.1 204 No Content', 'Transfer-Encoding: chunked\r\n', 'content-unexpected'],
    ['HTTP/1.1 100 Continue', 'Content-Length: 3\r\n', 'content-unexpected'],
    ['HTTP/1.1 200 OK', 'Content-Length: 3\r\nContent-Length: 3\r\n', 'length-repeated'],
    ['HTTP/1.1 200 OK', 'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', 'length-and-coding'],
    ['HTTP/1.1 200 OK', 'Transfer-Encoding: gzip\r\n', 'coding-not-chunked'],
    ['HTTP/1.0 200 OK', 'Transfer-Encoding: chunked\r\n', 'coding-version'],
    ['HTTP/1.1 304 Not Modified', 'Content-Length: x\r\n', 'length-invalid'],
  ])('%s %j is refused: %s', (first, lines, reason) => {
    expect(read(first, lines)).toBe(reason);
  });
});
