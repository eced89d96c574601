import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS, type Http1Limits, MAX_FIELDS } from '../../../src/http1/limits.ts';
import { HttpRefusal, type RefusalReason, refusals } from '../../../src/http1/refusal.ts';
import { RequestParser } from '../../../src/http1/request-parser.ts';
import { readRequests, readResponse } from './record.ts';

const limits: Http1Limits = { ...DEFAULT_LIMITS, startLine: 64, head: 256, fields: 4 };
const HOST = 'Host: a\r\n';

/** Refused, or complete, in one piece as in pieces of one byte. */
function read(text: string): string {
  const bytes = Buffer.from(text);
  const everywhere = Array.from(bytes, (_, at) => at);
  const [whole, cut] = [readRequests(bytes, [], limits), readRequests(bytes, everywhere, limits)];
  expect(cut.refusal).toBe(whole.refusal);
  return whole.refusal ?? (whole.messages[0]?.complete === true ? 'complete' : 'incomplete');
}

describe('bounds are exact', () => {
  it('of the request line, to the end of its target', () => {
    const target = (length: number): string => `/${'x'.repeat(length - 5)}`;
    expect(read(`GET ${target(64)} HTTP/1.1\r\n${HOST}\r\n`)).toBe('complete');
    expect(read(`GET ${target(65)} HTTP/1.1\r\n${HOST}\r\n`)).toBe('start-line-too-long');
    expect(read(`GET ${target(65)}`)).toBe('start-line-too-long');
    expect(read(`GET ${target(64)}`)).toBe('incomplete');
  });

  it('of the head', () => {
    const head = (length: number): string => {
      const rest = `GET / HTTP/1.1\r\n${HOST}X: \r\n\r\n`;
      return rest.replace('X: ', `X: ${'x'.repeat(length - rest.length)}`);
    };
    expect(read(head(256))).toBe('complete');
    expect(read(head(257))).toBe('head-too-large');
    expect(read(head(300).slice(0, 256))).toBe('head-too-large');
    expect(read(head(300).slice(0, 255))).toBe('incomplete');
  });

  it('of the number of fields', () => {
    expect(read(`GET / HTTP/1.1\r\n${HOST}${'X: 1\r\n'.repeat(3)}\r\n`)).toBe('complete');
    expect(read(`GET / HTTP/1.1\r\n${HOST}${'X: 1\r\n'.repeat(4)}\r\n`)).toBe('too-many-fields');
  });

  it('of a method, which does not go on for ever', () => {
    expect(read('X'.repeat(34))).toBe('method-unknown');
    expect(read('X'.repeat(30))).toBe('incomplete');
  });

  it('of a status line', () => {
    const asked = { method: 'GET', upgrade: undefined };
    const answer = (length: number): string => `HTTP/1.1 200 ${'x'.repeat(length)}\r\n\r\n`;
    expect(readResponse(Buffer.from(answer(8000)), asked).refusal).toBeUndefined();
    expect(readResponse(Buffer.from(answer(8192)), asked).refusal).toBe('status-line');
  });

  it('cannot be set above the table of positions', () => {
    const sink = { head: () => {}, content: () => {}, end: () => {} };
    expect(() => new RequestParser(sink, { ...DEFAULT_LIMITS, fields: MAX_FIELDS + 1 })).toThrow(RangeError);
    expect(() => new RequestParser(sink, { ...DEFAULT_LIMITS, fields: MAX_FIELDS })).not.toThrow();
  });
});

describe('HttpRefusal', () => {
  it('tells the client a status, and blames whoever wrote the message', () => {
    const request = new HttpRefusal('request', 'head-too-large');
    expect(request).toMatchObject({ code: 'protocol', source: 'caller', status: 431, retry: 'never' });
    expect(new HttpRefusal('response', 'head-too-large')).toMatchObject({ source: 'callee', status: 502 });
    for (const reason of Object.keys(refusals) as RefusalReason[]) {
      expect(new HttpRefusal('request', reason).status).toBeGreaterThanOrEqual(400);
    }
  });
});
