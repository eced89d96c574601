import { describe, expect, it } from 'vitest';
import { requestHeadText } from '../../../src/http1/head-writer.ts';
import { readWithNode } from '../../fuzz/http1.llhttp.ts';
import { readRequests, readResponse } from './record.ts';

/*
 * Requests that two servers in a row may take for different ones. Each is refused, or understood in the one way that is
 * sent on. Names as in the literature: which of two readers goes by Content-Length (CL), and which by Transfer-Encoding (TE).
 */

const post = (lines: string[], content: string): string =>
  `POST / HTTP/1.1\r\nHost: a\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n${content}`;
const HIDDEN = 'GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n';

const refused: readonly (readonly [name: string, text: string])[] = [
  ['CL.TE', post(['Content-Length: 6', 'Transfer-Encoding: chunked'], '0\r\n\r\nG')],
  ['TE.CL', post(['Transfer-Encoding: chunked', 'Content-Length: 4'], `5c\r\n${HIDDEN}0\r\n\r\n`)],
  ['CL.TE, the length 0', post(['Content-Length: 0', 'Transfer-Encoding: chunked'], HIDDEN)],
  ['CL.CL', post(['Content-Length: 0', `Content-Length: ${HIDDEN.length}`], HIDDEN)],
  ['CL.CL, in one line', post([`Content-Length: 0, ${HIDDEN.length}`], HIDDEN)],
  ['CL with a sign', post([`Content-Length: +${HIDDEN.length}`], HIDDEN)],
  ['CL that overflows 64 bits', post(['Content-Length: 18446744073709551616'], HIDDEN)],
  [
    'CL that overflows 32 bits, and a TE',
    post(['Content-Length: 4294967296', 'Transfer-Encoding: chunked'], HIDDEN),
  ],
  ['CL in another script', post(['Content-Length: \xb2'], HIDDEN)],
  ['CL with a space before its colon', post(['Content-Length : 0', 'Content-Length: 33'], HIDDEN)],
  ['CL in an obs-fold', post(['X-A: 1', ' Content-Length: 33'], HIDDEN)],
  ['CL behind a bare CR', post([`X-A: 1\rContent-Length: ${HIDDEN.length}`], HIDDEN)],
  ['CL behind a bare LF', post([`X-A: 1\nContent-Length: ${HIDDEN.length}`], HIDDEN)],
  ['CL behind a NUL', post([`X-A: 1\0Content-Length: ${HIDDEN.length}`], HIDDEN)],
  [
    'TE.TE, the second one unknown',
    post(['Transfer-Encoding: chunked', 'Transfer-Encoding: cow'], '0\r\n\r\nG'),
  ],
  [
    'TE.TE, the first one unknown',
    post(['Transfer-Encoding: cow', 'Transfer-Encoding: chunked'], '0\r\n\r\nG'),
  ],
  [
    'TE with a space before its colon',
    post(['Content-Length: 5', 'Transfer-Encoding : chunked'], '0\r\n\r\n'),
  ],
  ['TE with a vertical tab', post(['Content-Length: 5', 'Transfer-Encoding:\x0bchunked'], '0\r\n\r\n')],
  ['TE with a tab', post(['Transfer-Encoding:\tchunked'], '0\r\n\r\n')],
  ['TE in quotes', post(['Transfer-Encoding: "chunked"'], '0\r\n\r\n')],
  ['TE with a prefix', post(['Content-Length: 5', 'Transfer-Encoding: xchunked'], '0\r\n\r\n')],
  ['TE in an obs-fold', post(['Transfer-Encoding:', ' chunked'], '0\r\n\r\n')],
  [
    'TE in an obs-fold of another field',
    post(['Content-Length: 5', 'X: y', '\tTransfer-Encoding: chunked'], '0\r\n\r\n'),
  ],
  ['TE that is the identity', post(['Content-Length: 5', 'Transfer-Encoding: identity'], '0\r\n\r\n')],
  ['TE in HTTP/1.0', `POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`],
  ['TE with a high byte', post(['Content-Length: 5', 'Transfer-Encoding\xa0: chunked'], '0\r\n\r\n')],
  ['a head that ends in bare LF', `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\n${HIDDEN}`],
  ['a head that ends in CR CR LF', `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\r\n${HIDDEN}`],
  ['lines that end in bare LF', `POST / HTTP/1.1\nHost: a\nContent-Length: 33\n\n${HIDDEN}`],
  ['a chunk size with a sign', post(['Transfer-Encoding: chunked'], `-1\r\n${HIDDEN}`)],
  ['a chunk size with a prefix', post(['Transfer-Encoding: chunked'], `0x0\r\n\r\n${HIDDEN}`)],
  ['a chunk size that overflows', post(['Transfer-Encoding: chunked'], `10000000000000000\r\n\r\n${HIDDEN}`)],
  ['a chunk size with a space', post(['Transfer-Encoding: chunked'], `0 \r\n\r\n${HIDDEN}`)],
  ['a chunk size that ends in LF', post(['Transfer-Encoding: chunked'], `5\nhello\r\n0\r\n\r\n${HIDDEN}`)],
  [
    'an extension that hides a line end',
    post(['Transfer-Encoding: chunked'], `2;\nxx\r\n4c\r\n0\r\n\r\n${HIDDEN}`),
  ],
  [
    'an extension in quotes with a line end',
    post(['Transfer-Encoding: chunked'], `1;a="\n"\r\nx\r\n0\r\n\r\n`),
  ],
  ['chunk data that is too long', post(['Transfer-Encoding: chunked'], `1\r\nxx\r\n0\r\n\r\n`)],
  ['chunk data that ends in LF', post(['Transfer-Encoding: chunked'], `1\r\nx\n0\r\n\r\n`)],
  ['a trailer that frames', post(['Transfer-Encoding: chunked'], `0\r\nContent-Length: 33\r\n\r\n${HIDDEN}`)],
  ['two hosts', `GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n`],
  ['two hosts in one line', 'GET / HTTP/1.1\r\nHost: a, b\r\n\r\n'],
  ['a host with a user', 'GET / HTTP/1.1\r\nHost: a@b\r\n\r\n'],
  ['a host with a path', 'GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n'],
  ['a host behind white space', `GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n`],
  ['a request line with a second request', 'GET / HTTP/1.1 GET /x HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a target with white space', 'GET /x y HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['a target with a fragment', 'GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['HTTP/0.9', `GET /\r\n${HIDDEN}`],
  ['content for CONNECT', `CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 33\r\n\r\n${HIDDEN}`],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
];

describe('refused, and never a second request', () => {
  it.each(refused)('%s', (_name, text) => {
    const bytes = Buffer.from(text, 'latin1');
    const { messages, refusal } = readRequests(bytes);
    expect(refusal).toBeDefined();
    expect(messages.filter(({ complete }) => complete)).toEqual([]);
    for (let at = 1; at < bytes.length; at++) expect(readRequests(bytes, [at]).refusal).toBe(refusal);
  });
});

const understood: readonly (readonly [name: string, text: string])[] = [
  ['a GET with content', `GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ${HIDDEN.length}\r\n\r\n${HIDDEN}`],
  ['a length with zeros', post([`Content-Length: 000${HIDDEN.length}`], HIDDEN)],
  [
    'Connection that names the framing',
    post(['Connection: content-length', `Content-Length: ${HIDDEN.length}`], HIDDEN),
  ],
  ['Connection that names the host', `GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n`],
  ['an absolute target with another Host', `GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n`],
  [
    'a wish to switch, with content',
    post(['Connection: upgrade', 'Upgrade: h2c', 'Content-Length: 33'], HIDDEN),
  ],
  ['a name that looks like one that frames', post(['Content_Length: 33', 'X-Content-Length: 33'], '')],
  ['chunks of any spelling', post(['Transfer-Encoding: CHUNKED'], `0A;x="y"\r\n0123456789\r\n00\r\n\r\n`)],
];

describe('understood, and sent on in one spelling', () => {
  it.each(understood)('%s', (_name, text) => {
    const { heads, messages, refusal } = readRequests(Buffer.from(text, 'latin1'));
    expect({ refusal, count: messages.length }).toEqual({ refusal: undefined, count: 1 });
    const [message] = messages;
    const head = requestHeadText(heads[0]!, {});
    const chunked = heads[0]!.framing.kind === 'chunked';
    const content = chunked
      ? `${message!.content.length.toString(16)}\r\n${message!.content}\r\n0\r\n\r\n`
      : message!.content;
    const seen = readWithNode(Buffer.from(head + content, 'latin1'));
    expect(seen.refusal).toBeUndefined();
    expect(seen.messages).toMatchObject([{ content: message!.content, complete: true }]);
    expect(head.match(/^host:.*$/gim)).toEqual([`host: ${heads[0]!.authority}`]);
  });
});

describe('answers', () => {
  it.each([
    ['CL.TE', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['CL.CL', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
    ['TE with another coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\n'],
    ['an obs-fold', 'HTTP/1.1 200 OK\r\nX: 1\r\n Content-Length: 5\r\n\r\nhello'],
    ['a bare LF', 'HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 5\r\n\r\nhello'],
    ['content of 204', 'HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\nhello'],
  ])('%s is refused', (_name, text) => {
    const { refusal } = readResponse(Buffer.from(text, 'latin1'), { method: 'GET', upgrade: undefined });
    expect(refusal).toBeDefined();
  });
});
