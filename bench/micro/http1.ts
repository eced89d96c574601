import { fieldLine } from '../../src/http1/field-line.ts';
import { FieldNames } from '../../src/http1/field-names.ts';
import { requestHeadText } from '../../src/http1/head-writer.ts';
import type { RequestHead } from '../../src/http1/request-head.ts';
import { RequestParser } from '../../src/http1/request-parser.ts';
import { ResponseParser } from '../../src/http1/response-parser.ts';
import { measure } from './measure.ts';

/*
 * What the HTTP/1.1 codec costs for one typical message, without any I/O:
 *
 *   npx tsc -p tsconfig.tools.json && node build/bench/micro/http1.js
 *
 * The goal is 2 µs for a request head of 10 fields and about 500 bytes.
 */

const request = Buffer.from(
  [
    'GET /api/v1/orders/4711?expand=lines&fields=id,state,total HTTP/1.1',
    'Host: orders.shop.internal:8080',
    'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36',
    'Accept: application/json, text/plain;q=0.9, */*;q=0.8',
    'Accept-Encoding: gzip, deflate, br',
    'Accept-Language: de-DE,de;q=0.9,en;q=0.8',
    'Connection: keep-alive',
    'Cache-Control: no-cache',
    'Cookie: session=0af7651916cd43dd8448eb211c80319c',
    'X-Request-Id: b7ad6b71-6920-3331-0af7-651916cd43dd',
    'Referer: http://shop.internal/orders',
    '',
    '',
  ].join('\r\n'),
  'latin1',
);

const response = Buffer.from(
  [
    'HTTP/1.1 200 OK',
    'Server: nginx/1.22.1',
    'Date: Sat, 21 Nov 2026 15:57:44 GMT',
    'Content-Type: text/plain; charset=utf-8',
    'Content-Length: 12',
    'Connection: keep-alive',
    '',
    'hello world\n',
  ].join('\r\n'),
  'latin1',
);

let head: RequestHead | undefined;
const parser = new RequestParser({
  head: (each) => {
    head = each;
  },
  content: () => {},
  end: () => {},
});
const answers = new ResponseParser({ head: () => {}, content: () => {}, end: () => {} });

const parse = (): void => {
  parser.push(request);
  parser.next();
};
const half = request.length >> 1;
const [one, two] = [request.subarray(0, half), request.subarray(half)];
const out = Buffer.alloc(4096);
const replaced = new FieldNames(['x-forwarded-for', 'traceparent', 'via']);
const write = (): void => {
  const add =
    fieldLine('x-forwarded-for', '10.1.2.3') +
    fieldLine('traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') +
    fieldLine('via', '1.1 mesh-node');
  out.write(requestHeadText(head!, { remove: replaced, add }), 0, 'latin1');
};

measure(`request: parse (10 fields, ${request.length} bytes)`, parse);
measure('request: parse, in two pieces', () => {
  parser.push(one);
  parser.push(two);
  parser.next();
});
const long = Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(30_000)}\r\n\r\n`);
// What somebody would send who wants to keep the parser busy: the work is that of the bytes, not of their square.
measure(
  'request: parse 30 KB in single bytes',
  () => {
    for (let at = 0; at < long.length; at++) parser.push(long.subarray(at, at + 1));
    parser.next();
  },
  1,
);
measure('request: look up four fields', () => {
  head!.fields.get('cookie');
  head!.fields.get('x-request-id');
  head!.fields.has('authorization');
  head!.fields.get('x-user');
});
measure('request: write the head, three fields added', write);
measure('request: parse and write', () => {
  parse();
  write();
});
measure(`response: parse (5 fields, ${response.length} bytes)`, () => {
  answers.begin({ method: 'GET', upgrade: undefined });
  answers.push(response);
});
