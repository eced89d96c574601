import { describe, expect, it } from 'vitest';
import { HttpRefusal } from '../../../src/http1/refusal.ts';
import { RequestParser } from '../../../src/http1/request-parser.ts';
import { readRequests } from './record.ts';

const GET = 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\n';
const POST = 'POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello';
const CHUNKED =
  'PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n';

/** A parser, and what it told. */
function recording(onHead?: (parser: RequestParser) => void): { parser: RequestParser; events: string[] } {
  const events: string[] = [];
  const parser: RequestParser = new RequestParser({
    head: (head) => {
      events.push(`head ${head.target}`);
      onHead?.(parser);
    },
    content: (piece) => events.push(Buffer.from(piece).toString()),
    end: (trailers) => events.push(trailers === undefined ? 'end' : `end ${trailers.get('x-t')}`),
  });
  return { parser, events };
}

describe('RequestParser', () => {
  it('stops exactly behind a request, and goes on when it is told to', () => {
    const { parser, events } = recording();
    const bytes = Buffer.from(GET + POST + CHUNKED + GET);
    let at = parser.push(bytes);
    expect(at).toBe(GET.length);
    expect(parser.push(bytes, at)).toBe(at);
    expect(events).toEqual(['head /1', 'end']);
    parser.next();
    at = parser.push(bytes, at);
    expect(at).toBe(GET.length + POST.length);
    parser.next();
    at = parser.push(bytes, at);
    expect(at).toBe(GET.length + POST.length + CHUNKED.length);
    expect(events).toEqual(['head /1', 'end', 'head /2', 'hello', 'end', 'head /3', 'abc', 'end 1']);
    parser.next();
    expect(parser.push(bytes, at)).toBe(bytes.length);
  });

  it('tells the same wherever bytes are cut: at one place, at all of them', () => {
    const bytes = Buffer.from(`${GET}\r\n${POST}${CHUNKED}`);
    const whole = readRequests(bytes);
    expect(whole.messages.map(({ content, complete }) => [content, complete])).toEqual([
      ['', true],
      ['hello', true],
      ['abc', true],
    ]);
    for (let at = 1; at < bytes.length; at++) expect(readRequests(bytes, [at])).toEqual(whole);
    expect(
      readRequests(
        bytes,
        Array.from(bytes, (_, at) => at),
      ),
    ).toEqual(whole);
  });

  it('refuses the same wherever bytes are cut', () => {
    const bytes = Buffer.from(`${POST}GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n`);
    const whole = readRequests(bytes);
    expect(whole.refusal).toBe('field-name');
    for (let at = 1; at < bytes.length; at++) expect(readRequests(bytes, [at])).toEqual(whole);
  });

  it('hands on the content as views of the chunk', () => {
    const pieces: Uint8Array[] = [];
    const parser = new RequestParser({
      head: () => {},
      content: (piece) => pieces.push(piece),
      end: () => {},
    });
    const bytes = Buffer.from(POST);
    parser.push(bytes);
    expect(pieces[0]!.buffer).toBe(bytes.buffer);
    expect(pieces[0]!.byteOffset).toBe(bytes.byteOffset + bytes.length - 5);
  });

  it('keeps heads that outlive their bytes', () => {
    const { heads } = readRequests(Buffer.from(GET + POST), [3]);
    expect(heads.map(({ target, fields }) => [target, fields.get('host')])).toEqual([
      ['/1', 'a'],
      ['/2', 'a'],
    ]);
  });

  it('pauses behind a head, and takes the rest later', () => {
    const { parser, events } = recording((each) => each.pause());
    const bytes = Buffer.from(POST);
    const at = parser.push(bytes);
    expect(at).toBe(bytes.length - 5);
    expect(events).toEqual(['head /2']);
    expect(parser.push(bytes, at)).toBe(bytes.length);
    expect(events).toEqual(['head /2', 'hello', 'end']);
  });

  it('keeps two connections apart that are read in turns', () => {
    const [one, two] = [recording(), recording()];
    const bytes = [Buffer.from(CHUNKED), Buffer.from(POST.replace('Host: a', 'Host: b\r\nX-A: 1'))];
    for (let at = 0; at < CHUNKED.length; at++) {
      one.parser.push(bytes[0]!.subarray(at, at + 1));
      two.parser.push(bytes[1]!.subarray(at, at + 1));
    }
    expect(one.events).toEqual(['head /3', 'a', 'b', 'c', 'end 1']);
    expect(two.events).toEqual(['head /2', 'h', 'e', 'l', 'l', 'o', 'end']);
  });

  it('takes nothing behind the last request of a connection', () => {
    for (const last of [
      GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'),
      GET.replace('1.1', '1.0'),
      'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n',
    ]) {
      const { parser, events } = recording();
      const bytes = Buffer.from(last + GET);
      expect(parser.push(bytes)).toBe(last.length);
      expect(parser.next()).toBe(false);
      expect(parser.push(bytes, last.length)).toBe(last.length);
      expect(events.length).toBe(2);
    }
  });

  it('knows where a connection may end', () => {
    for (const [text, idle] of [
      ['', true],
      [GET, true],
      ['G', false],
      ['\r', false],
      [GET.slice(0, -1), false],
      [POST.slice(0, -1), false],
      [CHUNKED.slice(0, -1), false],
    ] as const) {
      const { parser } = recording();
      parser.push(Buffer.from(text));
      expect(parser.idle).toBe(idle);
      if (idle) parser.finish();
      else expect(() => parser.finish()).toThrow(HttpRefusal);
    }
  });

  it('reads nothing any more after a refusal', () => {
    const { parser, events } = recording();
    const refusal = (): unknown => {
      try {
        return parser.push(Buffer.from('GET /\n'));
      } catch (error) {
        return error;
      }
    };
    const first = refusal();
    expect(first).toBeInstanceOf(HttpRefusal);
    expect(refusal()).toBe(first);
    expect(() => parser.push(Buffer.from(GET))).toThrow(first as Error);
    expect(parser.next()).toBe(false);
    expect(() => parser.push(Buffer.from(GET))).toThrow(first as Error);
    parser.finish();
    expect(events).toEqual([]);
  });

  it('takes a long head in single bytes', () => {
    const bytes = Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(30_000)}\r\n\r\n`);
    const { parser, events } = recording();
    for (let at = 0; at < bytes.length; at++) parser.push(bytes.subarray(at, at + 1));
    expect(events).toEqual(['head /', 'end']);
  });
});
