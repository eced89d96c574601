import { describe, expect, it } from 'vitest';
import { fieldLine } from '../../../src/http1/field-line.ts';
import { FieldNames } from '../../../src/http1/field-names.ts';
import { CHUNKED, UNTIL_CLOSE } from '../../../src/http1/framing.ts';
import {
  type RequestChanges,
  type ResponseChanges,
  requestHeadText,
  responseHeadText,
  trailerLines,
} from '../../../src/http1/head-writer.ts';
import { MeshError } from '../../../src/model/errors.ts';
import { readRequests, readResponse } from './record.ts';

function request(text: string, changes: RequestChanges = {}): string[] {
  const { heads } = readRequests(Buffer.from(text, 'latin1'));
  return requestHeadText(heads[0]!, changes).split('\r\n');
}

function response(text: string, changes: ResponseChanges = {}, method = 'GET', upgrade?: string): string[] {
  const { heads } = readResponse(Buffer.from(text, 'latin1'), { method, upgrade }, [], false);
  return responseHeadText(heads[0]!, changes).split('\r\n');
}

const first = 'GET /a?b HTTP/1.1\r\nHost: a.example\r\n';

describe('a request that is sent on', () => {
  it('has one spelling', () => {
    expect(
      request(`${first}X-A:1\r\nX-B: \t2 \r\nX-C: caf\xe9\r\nX-D:\r\nContent-Length:  007\r\n\r\n`),
    ).toEqual([
      'GET /a?b HTTP/1.1',
      'host: a.example',
      'X-A: 1',
      'X-B: 2',
      'X-C: caf\xe9',
      'X-D: ',
      'content-length: 7',
      '',
      '',
    ]);
  });

  it('has the length or coding that was read, and nothing of how it was written', () => {
    expect(request(`POST${first.slice(3)}transfer-encoding:  CHUNKED\r\n\r\n`)).toContain(
      'transfer-encoding: chunked',
    );
    expect(request(`POST${first.slice(3)}Content-Length: 0\r\n\r\n`)).toContain('content-length: 0');
    expect(request(`${first}\r\n`)).toEqual(['GET /a?b HTTP/1.1', 'host: a.example', '', '']);
  });

  it('is HTTP/1.1, in the form for origin servers', () => {
    const target = (line: string, changes?: RequestChanges): string[] =>
      request(`${line}\r\nHost: a.example\r\n\r\n`, changes).slice(0, 2);
    expect(target('GET / HTTP/1.0')).toEqual(['GET / HTTP/1.1', 'host: a.example']);
    // The target has the last word over Host (RFC 9112, 3.2.2).
    expect(target('GET http://b:81/x?y HTTP/1.1')).toEqual(['GET /x?y HTTP/1.1', 'host: b:81']);
    expect(target('OPTIONS http://b HTTP/1.1')).toEqual(['OPTIONS * HTTP/1.1', 'host: b']);
    expect(target('CONNECT b:443 HTTP/1.1')).toEqual(['CONNECT b:443 HTTP/1.1', 'host: b:443']);
    expect(target('GET / HTTP/1.1', { path: '/z', authority: 'c:1' })).toEqual([
      'GET /z HTTP/1.1',
      'host: c:1',
    ]);
  });

  it('loses what is for one connection only (RFC 9110, 7.6.1)', () => {
    const lines = [
      'Connection: close, X-Hop, Cookie2',
      'Keep-Alive: timeout=5',
      'Proxy-Connection: keep-alive',
      'X-A: 1',
      'x-hop: 1',
      'X-B: 2',
      'TE: gzip',
      'Upgrade: h2c',
      'X-HOP: 2',
      'COOKIE2: a',
    ];
    expect(request(`${first}${lines.join('\r\n')}\r\n\r\n`)).toEqual([
      'GET /a?b HTTP/1.1',
      'host: a.example',
      'X-A: 1',
      'X-B: 2',
      '',
      '',
    ]);
  });

  it('keeps who it is for and how it is framed, whatever Connection names', () => {
    const lines = 'Connection: host, content-length, transfer-encoding\r\nContent-Length: 5\r\n';
    expect(request(`${first}${lines}\r\n`)).toEqual([
      'GET /a?b HTTP/1.1',
      'host: a.example',
      'content-length: 5',
      '',
      '',
    ]);
  });

  it('passes on a wish to switch only where it is wanted, trailers, and the end of the connection', () => {
    const upgrading = `${first}Connection: Upgrade, x-a\r\nX-A: 1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n`;
    expect(request(upgrading)).toEqual([
      'GET /a?b HTTP/1.1',
      'host: a.example',
      'Sec-WebSocket-Version: 13',
      '',
      '',
    ]);
    expect(request(upgrading, { upgrade: true }).slice(3)).toEqual([
      'upgrade: websocket',
      'connection: upgrade',
      '',
      '',
    ]);
    const trailers = request(`${first}TE: trailers\r\n\r\n`, { close: true });
    expect(trailers.slice(2)).toEqual(['te: trailers', 'connection: close, te', '', '']);
  });

  it('drops an expectation of HTTP/1.0', () => {
    expect(request(`${first}Expect: 100-continue\r\n\r\n`)).toContain('Expect: 100-continue');
    const old = request('POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n');
    expect(old).not.toContain('Expect: 100-continue');
  });

  it('removes and adds fields', () => {
    const remove = new FieldNames(['x-forwarded-for', 'X-A']);
    const add = fieldLine('x-forwarded-for', '10.0.0.1');
    expect(
      request(`${first}X-A: 1\r\nX-Forwarded-For: evil\r\nX-B: 2\r\nx-a: 3\r\n\r\n`, { remove, add }),
    ).toEqual(['GET /a?b HTTP/1.1', 'host: a.example', 'X-B: 2', 'x-forwarded-for: 10.0.0.1', '', '']);
  });

  it.each([
    { path: 'x' },
    { path: '' },
    { path: '*' },
    { path: '/a b' },
    { path: '/\r\nX: 1' },
    { path: '/\u0100' },
    { authority: '' },
    { authority: 'a\r\nX: 1' },
    { authority: 'a b' },
  ])('is not made with %j', (changes) => {
    expect(() => request(`${first}\r\n`, changes)).toThrow(MeshError);
  });

  it('needs a host', () => {
    expect(() => request('GET / HTTP/1.0\r\n\r\n')).toThrow(MeshError);
    expect(request('GET / HTTP/1.0\r\n\r\n', { authority: '10.0.0.1:80' })).toContain('host: 10.0.0.1:80');
  });
});

describe('fieldLine', () => {
  it('makes a line', () => {
    expect(fieldLine('x-a', 'b c\xe9')).toBe('x-a: b c\xe9\r\n');
    expect(fieldLine('x-a', '')).toBe('x-a: \r\n');
  });

  it.each([
    ['', 'a'],
    ['x a', 'a'],
    ['x:', 'a'],
    ['x\r\n', 'a'],
    ['Content-Length', '1'],
    ['transfer-encoding', 'chunked'],
    ['host', 'a'],
    ['Connection', 'close'],
    ['x\u0130', 'a'],
    ['x', 'a\r\nb: c'],
    ['x', 'a\n'],
    ['x', '\0'],
    ['x', '\u0100'],
    ['x', '\u010d\u010a'],
  ])('makes none of %j and %j', (name, value) => {
    expect(() => fieldLine(name, value)).toThrow(MeshError);
  });
});

describe('an answer that is sent on', () => {
  const ok = 'HTTP/1.1 200 OK\r\n';

  it('has one spelling, and nothing that is for one connection only', () => {
    const lines =
      'Server:x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 03\r\n';
    expect(response(`${ok}${lines}\r\n`)).toEqual([
      'HTTP/1.1 200 OK',
      'Server: x',
      'content-length: 3',
      '',
      '',
    ]);
    expect(response('HTTP/1.0 404\r\nContent-Length: 3\r\n\r\n')[0]).toBe('HTTP/1.1 404 ');
  });

  it('may be delimited otherwise than it came', () => {
    expect(response(`${ok}\r\n`)).toEqual(['HTTP/1.1 200 OK', 'connection: close', '', '']);
    expect(response(`${ok}\r\n`, { framing: CHUNKED })).toEqual([
      'HTTP/1.1 200 OK',
      'transfer-encoding: chunked',
      '',
      '',
    ]);
    expect(response(`${ok}Transfer-Encoding: chunked\r\n\r\n`, { framing: UNTIL_CLOSE })).toEqual([
      'HTTP/1.1 200 OK',
      'connection: close',
      '',
      '',
    ]);
    expect(response(`${ok}Content-Length: 1\r\n\r\n`, { connection: 'keep-alive' })).toContain(
      'connection: keep-alive',
    );
    expect(response(`${ok}Content-Length: 1\r\n\r\n`, { connection: 'close' })).toContain(
      'connection: close',
    );
  });

  it('says what length there would have been, to HEAD and 304 alone', () => {
    expect(response(`${ok}Content-Length: 3\r\n\r\n`, {}, 'HEAD')).toContain('content-length: 3');
    expect(response('HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n')).toContain('content-length: 3');
    expect(response('HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n')).toEqual([
      'HTTP/1.1 204 No Content',
      '',
      '',
    ]);
    expect(response('HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n')).toEqual([
      'HTTP/1.1 100 Continue',
      '',
      '',
    ]);
    expect(response(`${ok}Content-Length: 3\r\n\r\n`, {}, 'CONNECT')).toEqual(['HTTP/1.1 200 OK', '', '']);
  });

  it('switches protocols', () => {
    const text =
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: 1\r\n\r\n';
    expect(response(text, { connection: 'close' }, 'GET', 'websocket')).toEqual([
      'HTTP/1.1 101 Switching Protocols',
      'X: 1',
      'upgrade: websocket',
      'connection: upgrade',
      '',
      '',
    ]);
  });

  it('has trailers of one spelling', () => {
    const text = `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\nX-A:1\r\nX-B: 2\r\nX-C: 3\r\n\r\n`;
    let lines = '';
    const { messages } = readResponse(
      Buffer.from(text),
      { method: 'GET', upgrade: undefined },
      [],
      false,
      (trailers) => {
        lines = trailerLines(trailers, { remove: new FieldNames(['x-b']), add: fieldLine('x-d', '4') });
      },
    );
    expect(messages[0]?.complete).toBe(true);
    expect(lines).toBe('X-A: 1\r\nX-C: 3\r\nx-d: 4\r\n');
  });
});
