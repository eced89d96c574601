import { describe, expect, it } from 'vitest';
import { MAX_INTERIM } from '../../../src/http1/limits.ts';
import { HttpRefusal } from '../../../src/http1/refusal.ts';
import { ResponseParser } from '../../../src/http1/response-parser.ts';
import { readResponse } from './record.ts';

const GET = { method: 'GET', upgrade: undefined };
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

function read(text: string, asked = GET as { method: string; upgrade: string | undefined }, ended = false) {
  const bytes = Buffer.from(text, 'latin1');
  const whole = readResponse(bytes, asked, [], ended);
  if (whole.rest === '') {
    for (let at = 1; at < bytes.length; at++) expect(readResponse(bytes, asked, [at], ended)).toEqual(whole);
  }
  return whole;
}

describe('status line (RFC 9112, 4)', () => {
  it.each([
    ['HTTP/1.1 200 OK', 200, 'OK'],
    ['HTTP/1.1 200 ', 200, ''],
    ['HTTP/1.1 200', 200, ''],
    ['HTTP/1.0 404 Nicht gefunden \xfc', 404, 'Nicht gefunden \xfc'],
    ['HTTP/1.1 999 Odd', 999, 'Odd'],
  ])('%j', (first, status, reason) => {
    expect(read(`${first}\r\nContent-Length: 0\r\n\r\n`).heads[0]).toMatchObject({ status, reason });
  });

  it.each([
    ['HTTP/1.1  200 OK\r\n', 'status-line'],
    ['HTTP/1.1 20 OK\r\n', 'status-line'],
    ['HTTP/1.1 2000 OK\r\n', 'status-line'],
    ['HTTP/1.1 099 OK\r\n', 'status-line'],
    ['HTTP/1.1 2x0 OK\r\n', 'status-line'],
    ['HTTP/1.1 200\tOK\r\n', 'status-line'],
    ['HTTP/1.1 200 O\0K\r\n', 'status-line'],
    ['HTTP/1.1\r\n', 'status-line'],
    ['\r\nHTTP/1.1 200 OK\r\n', 'status-line'],
    ['ICY 200 OK\r\n', 'status-line'],
    ['HTTP/2.0 200 OK\r\n', 'version-unsupported'],
    ['HTTP/1.1 200 OK\n', 'line-end'],
    ['HTTP/1.1 200 OK\rX', 'line-end'],
    ['HTTP/1.1 200\n', 'status-line'],
  ])('%j is refused: %s', (text, reason) => {
    expect(read(text).refusal).toBe(reason);
  });
});

describe('ResponseParser', () => {
  it('leaves a connection that can be used again', () => {
    expect(read(OK)).toMatchObject({ reusable: true, messages: [{ content: 'ok', complete: true }] });
    expect(read('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n').reusable).toBe(false);
  });

  it('never takes what comes behind an answer for the next one (RFC 9112, 6.3)', () => {
    const events: string[] = [];
    const parser = new ResponseParser({
      head: (head) => events.push(String(head.status)),
      content: () => {},
      end: () => {
        events.push(`end ${parser.reusable}`);
        if (parser.reusable) parser.begin(GET);
      },
    });
    parser.begin(GET);
    expect(parser.push(Buffer.from(OK + OK))).toBe(OK.length);
    expect(events).toEqual(['200', 'end false']);
    expect(parser.reusable).toBe(false);
    expect(() => parser.begin(GET)).toThrow();
  });

  it('refuses bytes that nobody asked for', () => {
    const parser = new ResponseParser({ head: () => {}, content: () => {}, end: () => {} });
    expect(() => parser.push(Buffer.from(OK))).toThrow(HttpRefusal);
    const other = new ResponseParser({ head: () => {}, content: () => {}, end: () => {} });
    other.begin(GET);
    other.push(Buffer.from(OK));
    expect(() => other.push(Buffer.from('H'))).toThrow(
      expect.objectContaining({ reason: 'unasked-response' }),
    );
    expect(other.reusable).toBe(false);
  });

  it('reads one answer after the other', () => {
    const ends: string[] = [];
    const parser = new ResponseParser({ head: () => {}, content: () => {}, end: () => ends.push('end') });
    for (let turn = 0; turn < 3; turn++) {
      parser.begin(GET);
      expect(parser.begun).toBe(false);
      parser.push(Buffer.from(OK.slice(0, 4)));
      expect(parser.begun).toBe(true);
      parser.push(Buffer.from(OK.slice(4)));
    }
    expect(ends).toEqual(['end', 'end', 'end']);
    parser.finish();
    expect(parser.reusable).toBe(false);
  });

  it('tells interim answers as heads, up to a bound', () => {
    const hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n';
    const { heads, messages } = read(`HTTP/1.1 100 Continue\r\n\r\n${hints}${OK}`);
    expect(heads.map(({ status, interim }) => [status, interim])).toEqual([
      [100, true],
      [103, true],
      [200, false],
    ]);
    expect(messages.at(-1)).toMatchObject({ content: 'ok', complete: true });
    expect(read(hints.repeat(MAX_INTERIM) + OK).refusal).toBeUndefined();
    expect(read(hints.repeat(MAX_INTERIM + 1) + OK).refusal).toBe('too-many-interim');
    expect(read(`HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n${OK}`).refusal).toBe('interim-last');
    expect(read(`HTTP/1.0 100 Continue\r\n\r\n${OK}`).refusal).toBe('interim-last');
  });

  it('ends content that goes on to the end of the connection, and no other', () => {
    expect(read('HTTP/1.1 200 OK\r\n\r\nhello', GET, true)).toMatchObject({
      refusal: undefined,
      reusable: false,
      messages: [{ content: 'hello', complete: true }],
    });
    for (const text of ['HTTP', 'HTTP/1.1 200 OK\r\n', OK.slice(0, -1), 'HTTP/1.1 100 Continue\r\n\r\n']) {
      expect(read(text, GET, true)).toMatchObject({ refusal: 'incomplete' });
    }
    expect(read('', GET, true).refusal).toBe('incomplete');
    expect(read(OK, GET, true).refusal).toBeUndefined();
  });

  it('stops behind a switch of protocols that was asked for', () => {
    const asked = { method: 'GET', upgrade: 'h2c, WebSocket' };
    const switching = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n';
    const { messages, rest, refusal, reusable } = read(
      `${switching}\x81\x00HTTP/1.1 200 OK\r\n\r\n`,
      asked,
      true,
    );
    expect(messages).toMatchObject([{ complete: true, content: '' }]);
    expect({ rest, refusal, reusable }).toEqual({
      rest: '\x81\x00HTTP/1.1 200 OK\r\n\r\n',
      refusal: undefined,
      reusable: false,
    });
    expect(read(switching, GET).refusal).toBe('upgrade-unasked');
    expect(read(switching.replace('websocket', 'other'), asked).refusal).toBe('upgrade-unasked');
    expect(read('HTTP/1.1 101 Switching Protocols\r\n\r\n', asked).refusal).toBe('upgrade-unasked');
  });

  it('stops behind a tunnel that CONNECT opened, and reads the answer that refuses one', () => {
    const asked = { method: 'CONNECT', upgrade: undefined };
    expect(read('HTTP/1.1 200 OK\r\n\r\n\x16\x03', asked).rest).toBe('\x16\x03');
    expect(read('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno', asked)).toMatchObject({
      reusable: true,
      messages: [{ content: 'no' }],
    });
  });

  it('pauses behind a head', () => {
    const events: string[] = [];
    const parser = new ResponseParser({
      head: () => {
        events.push('head');
        parser.pause();
      },
      content: () => events.push('content'),
      end: () => events.push('end'),
    });
    parser.begin(GET);
    const at = parser.push(Buffer.from(OK));
    expect([at, ...events]).toEqual([OK.length - 2, 'head']);
    parser.push(Buffer.from(OK), at);
    expect(events).toEqual(['head', 'content', 'end']);
  });
});
