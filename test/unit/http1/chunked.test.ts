import { describe, expect, it } from 'vitest';
import { MAX_CHUNK_EXTENSION, MAX_CHUNK_EXTENSIONS } from '../../../src/http1/limits.ts';
import { readRequests } from './record.ts';

const HEAD = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';

function read(body: string): unknown {
  const { messages, refusal, rest } = readRequests(Buffer.from(HEAD + body, 'latin1'));
  if (refusal !== undefined) return refusal;
  const { content, trailers, complete } = messages[0]!;
  return { content, trailers, complete, rest };
}
const whole = (content: string, trailers: [string, string][] = []): unknown => ({
  content,
  trailers,
  complete: true,
  rest: '',
});

describe('chunked coding (RFC 9112, 7.1)', () => {
  it.each([
    ['0\r\n\r\n', ''],
    ['5\r\nhello\r\n0\r\n\r\n', 'hello'],
    ['5\r\nhello\r\n1\r\n!\r\n000\r\n\r\n', 'hello!'],
    ['00000000000000A\r\n0123456789\r\n0\r\n\r\n', '0123456789'],
    ['a\r\n0123456789\r\n0\r\n\r\n', '0123456789'],
    ['2\r\n\r\n\r\n0\r\n\r\n', '\r\n'],
    ['1;a\r\nx\r\n0;b=c\r\n\r\n', 'x'],
    ['1;a=b;c="d; e\t";f\r\nx\r\n0\r\n\r\n', 'x'],
  ])('%j', (body, content) => {
    expect(read(body)).toEqual(whole(content));
  });

  it.each([
    ['\r\n', 'chunk-size'],
    [';a\r\n', 'chunk-size'],
    ['x\r\n', 'chunk-size'],
    ['-1\r\n', 'chunk-size'],
    ['+1\r\n', 'chunk-size'],
    ['0x1\r\n', 'chunk-size'],
    ['5_\r\nhello\r\n', 'chunk-size'],
    [' 5\r\nhello\r\n', 'chunk-size'],
    ['1\0\r\n', 'chunk-size'],
    ['20000000000000\r\n', 'chunk-size'],
    ['fffffffffffffffff\r\n', 'chunk-size'],
    ['10000000000000000\r\n', 'chunk-size'],
    ['00000000000000001\r\nx\r\n', 'chunk-size'],
    ['5 \r\nhello\r\n', 'chunk-extension'],
    ['5 ;a\r\nhello\r\n', 'chunk-extension'],
    ['5;\r\nhello\r\n', 'chunk-extension'],
    ['5; a\r\nhello\r\n', 'chunk-extension'],
    ['5;a =b\r\nhello\r\n', 'chunk-extension'],
    ['5;a=\r\nhello\r\n', 'chunk-extension'],
    ['5;a="b\r\nhello\r\n', 'chunk-extension'],
    ['5;a="b"c\r\nhello\r\n', 'chunk-extension'],
    ['5;a="\\""\r\nhello\r\n', 'chunk-extension'],
    ['5;a="\xe9"\r\nhello\r\n', 'chunk-extension'],
    ['5;;a\r\nhello\r\n', 'chunk-extension'],
    ['5;a\rb\r\nhello\r\n', 'line-end'],
    ['5\nhello\r\n0\r\n\r\n', 'line-end'],
    ['5;a\nhello\r\n0\r\n\r\n', 'line-end'],
    ['5\r\rhello\r\n', 'line-end'],
    ['5\r\nhello!\r\n', 'chunk-end'],
    ['5\r\nhello\n0\r\n\r\n', 'chunk-end'],
    ['5\r\nhello\r0\r\n\r\n', 'chunk-end'],
    ['5\r\nhello0\r\n\r\n', 'chunk-end'],
    ['0\r\n\n', 'line-end'],
    ['0\r\n\rX', 'line-end'],
  ])('%j is refused: %s', (body, reason) => {
    expect(read(body)).toBe(reason);
  });

  it('bounds the extensions of a chunk, and those of a message', () => {
    const fill = 'a'.repeat(MAX_CHUNK_EXTENSION - 2);
    expect(read(`1;${fill}\r\nx\r\n0\r\n\r\n`)).toEqual(whole('x'));
    expect(read(`1;${fill}aa\r\nx\r\n0\r\n\r\n`)).toBe('chunk-extension');
    const many = Math.ceil(MAX_CHUNK_EXTENSIONS / fill.length);
    expect(read(`${`1;${fill}\r\nx\r\n`.repeat(many)}0\r\n\r\n`)).toBe('chunk-extension');
  });
});

describe('trailers (RFC 9112, 7.1.2)', () => {
  it('come with the end', () => {
    expect(read('1\r\nx\r\n0\r\nX-Sum: 1\r\nx-b:2\r\n\r\n')).toEqual(
      whole('x', [
        ['X-Sum', '1'],
        ['x-b', '2'],
      ]),
    );
  });

  it.each([
    'Content-Length: 1',
    'Transfer-Encoding: chunked',
    'Host: b',
    'Connection: close',
    'Upgrade: x',
    'TE: x',
    'Trailer: x',
  ])('may not have %s', (field) => expect(read(`0\r\nX-A: 1\r\n${field}\r\n\r\n`)).toBe('trailer-field'));

  it.each([
    ['0\r\nX A: 1\r\n\r\n', 'field-name'],
    ['0\r\nX-A: 1\n\r\n', 'line-end'],
    ['0\r\n X-A: 1\r\n\r\n', 'obs-fold'],
    ['0\r\nX-A: \0\r\n\r\n', 'field-value'],
    [`0\r\n${'X: 1\r\n'.repeat(33)}\r\n`, 'trailers-too-large'],
    [`0\r\nX: ${'1'.repeat(8200)}\r\n\r\n`, 'trailers-too-large'],
  ])('%j are refused: %s', (body, reason) => {
    expect(read(body)).toBe(reason);
  });
});
