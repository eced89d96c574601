import { METHODS } from 'node:http';

/* Messages for the HTTP/1.1 codec: valid ones, those that attacks are made of, and both with bytes bent. */

/** Gives a whole number below its argument. */
export type Random = (below: number) => number;

/** mulberry32: small, seeded, good enough to bend bytes with. */
export function random(from: number): Random {
  let state = from;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function one<T>(next: Random, from: readonly T[]): T {
  return from[next(from.length)]!;
}

/** Usually the first, sometimes one of the others. */
function mostly<T>(next: Random, usual: T, others: readonly T[]): T {
  return next(6) === 0 ? one(next, others) : usual;
}

const methods = [...METHODS, 'GET', 'PUT', 'HEAD', 'OPTIONS', 'CONNECT', 'TRACE'];
const oddMethods = ['get', 'FOO', 'GE', 'GET ', 'PRI', '', 'G@T', 'SOURCE', 'DESCRIBE', 'P\x00ST'];
const targets = [
  '/',
  '/a/b?c=d',
  '/a%20b',
  '*',
  'http://a.example/x',
  'http://a:80?q',
  'https://[::1]:443',
  'a:443',
];
const oddTargets = [
  '/#f',
  '',
  'a',
  '//x/',
  'http:///x',
  'http://u@a/',
  'ftp://a/',
  '/\x80',
  '/a b',
  'a:0',
  '?q',
  '/"<>|',
];
const versions = ['1.0', '0.9', '2.0', '1.2', '1.1 ', '1', '01.1', '1.1\t'];
const hosts = ['a.example', 'a:8080', '[fd00::1]:80', '10.0.0.1', 'a_b-c'];
const oddHosts = ['', 'a b', 'a,b', 'a@b', 'a:', 'a:99999', '[::1', 'a/b', 'a\x80', 'a:80:80'];
const lengths = [
  '+5',
  '-1',
  '5,5',
  '5, 5',
  '0x5',
  '5 5',
  '',
  '1e1',
  '99999999999999999999',
  '05',
  '5;',
  '"5"',
];
const codings = [
  'gzip, chunked',
  'chunked, chunked',
  'identity',
  'xchunked',
  'chunked;q=1',
  'chunked, gzip',
  '\x0bchunked',
  '',
];
const spaces = ['', ' ', '  ', '\t', ' \t '];
const names = [
  'X-A',
  'Accept',
  'Cookie',
  'x-b',
  "!#$%&'*+-.^_`|~",
  'TE',
  'Trailer',
  'Expect',
  'Upgrade',
  'Keep-Alive',
];
const values = [
  '1',
  'a, b',
  'trailers',
  '100-continue',
  'websocket',
  'h2c',
  'caf\xe9',
  '',
  '"q"',
  'a\tb',
  'x'.repeat(40),
];
const oddNames = [
  'X A',
  'X\x00',
  '',
  ' X',
  'X\x7f',
  'Content-Length ',
  'Transfer-Encoding\t',
  'X:',
  'Cont\xebnt',
];
const connections = [
  'close',
  'keep-alive',
  'upgrade',
  'Upgrade, close',
  'x-a',
  'te, X-B',
  'close, keep-alive',
  'a b',
  ',',
];
const lineEnds = ['\n', '\r', '\r\r\n', '\n\r', '\r\n ', '\r\n\t', '\x0b\r\n'];

function line(next: Random, odd: boolean, name: string, value: string): string {
  const before = mostly(next, ' ', spaces);
  const after = mostly(next, '', spaces);
  const end = odd && next(40) === 0 ? one(next, lineEnds) : '\r\n';
  return `${name}:${before}${value}${after}${end}`;
}

function chunks(next: Random, odd: boolean): string {
  let text = '';
  for (let count = next(4); count > 0; count--) {
    const size = 1 + next(20);
    const digits = mostly(next, size.toString(16), [
      size.toString(16).toUpperCase(),
      `00${size.toString(16)}`,
    ]);
    const extension = mostly(next, '', [';a', ';a=b', ';a="b c"', ';a;b=1']);
    const bent = odd && next(12) === 0;
    const wrong = one(next, [
      `0x${digits}`,
      `${digits} `,
      `-${digits}`,
      '',
      'ffffffffffffffffff',
      `${digits};`,
      `${digits}\n`,
    ]);
    text += `${bent ? wrong : digits}${extension}\r\n`;
    text += `${'d'.repeat(odd && next(15) === 0 ? size + next(3) - 1 : size)}${odd && next(20) === 0 ? '\n' : '\r\n'}`;
  }
  text += `${mostly(next, '0', ['00', '0;x=y'])}\r\n`;
  const trailer = odd ? one(next, ['x-t', 'Content-Length', 'Host', 'X T']) : 'x-t';
  for (let count = next(8) === 0 ? 1 + next(2) : 0; count > 0; count--)
    text += line(next, odd, trailer, one(next, values));
  return `${text}\r\n`;
}

/** The fields that frame the content, and the content. */
function contentParts(next: Random, odd: boolean): [fields: string, content: string] {
  const kind = next(odd ? 6 : 4);
  const content = 'b'.repeat(next(12));
  const length = (value: string): string =>
    line(next, odd, mostly(next, 'Content-Length', ['content-length']), value);
  const coding = (value: string): string =>
    line(next, odd, mostly(next, 'Transfer-Encoding', ['transfer-encoding']), value);
  if (kind <= 1) return ['', ''];
  if (kind === 2)
    return [length(odd && next(3) === 0 ? one(next, lengths) : String(content.length)), content];
  if (kind === 3) return [coding(odd && next(3) === 0 ? one(next, codings) : 'chunked'), chunks(next, odd)];
  const both = [
    length(String(content.length)),
    next(2) === 0 ? coding('chunked') : length(one(next, [String(content.length), '1'])),
  ];
  return [
    next(2) === 0 ? both.join('') : both.reverse().join(''),
    next(2) === 0 ? content : chunks(next, false),
  ];
}

function plainFields(next: Random, odd: boolean): string {
  let text = '';
  for (let count = next(4); count > 0; count--) text += line(next, odd, one(next, names), one(next, values));
  if (next(3) === 0) text += line(next, odd, 'Connection', one(next, connections));
  if (odd && next(6) === 0) text += line(next, odd, one(next, oddNames), one(next, values));
  return text;
}

function request(next: Random, odd: boolean): string {
  const method = odd && next(10) === 0 ? one(next, oddMethods) : mostly(next, 'POST', methods);
  const usual = method === 'CONNECT' ? 'a.example:443' : '/p?q=1';
  const target = odd && next(8) === 0 ? one(next, oddTargets) : mostly(next, usual, targets);
  const version = odd && next(8) === 0 ? one(next, versions) : mostly(next, '1.1', ['1.0']);
  const host = odd && next(8) === 0 ? one(next, oddHosts) : one(next, hosts);
  const lines = odd && next(12) === 0 ? next(3) : 1;
  const [framing, content] = contentParts(next, odd);
  const head = line(next, odd, 'Host', host).repeat(lines) + plainFields(next, odd) + framing;
  return `${next(20) === 0 ? '\r\n' : ''}${method} ${target} HTTP/${version}\r\n${head}\r\n${content}`;
}

function response(next: Random, odd: boolean): string {
  const status = one(next, ['200', '200', '200', '404', '204', '304', '100', '103', '101', '500', '999']);
  const version = odd && next(8) === 0 ? one(next, versions) : mostly(next, '1.1', ['1.0']);
  const reason = mostly(next, ' OK', [' ', '', ' Not \xfcbel', ...(odd ? ['\t', ' a\x00b', 'x'] : [])]);
  const [framing, content] = contentParts(next, odd);
  const text = `HTTP/${version} ${status}${reason}\r\n${plainFields(next, odd)}${framing}\r\n${content}`;
  return `${text}${status.startsWith('10') || next(4) === 0 ? response(next, odd) : ''}`;
}

const special = [
  '\r',
  '\n',
  '\0',
  ' ',
  '\t',
  ':',
  ';',
  ',',
  '\x0b',
  '\x7f',
  '\xff',
  '\r\n',
  '\r\n\r\n',
  '0\r\n\r\n',
  'GET / HTTP/1.1\r\n',
];

/** Replaces, removes, repeats and inserts a few bytes. */
function bend(next: Random, text: string): string {
  let bent = text;
  for (let changes = 1 + next(3); changes > 0; changes--) {
    const at = next(bent.length + 1);
    const to = Math.min(bent.length, at + next(3));
    const piece = one(next, [
      special[next(special.length)]!,
      String.fromCharCode(next(256)),
      '',
      bent.slice(at, at + 30),
    ]);
    bent = bent.slice(0, at) + piece + bent.slice(to);
  }
  return bent;
}

/** One to three messages: a third valid, a third with the parts of attacks, a third with bent bytes. */
export function generate(next: Random, side: 'request' | 'response'): Buffer {
  const way = next(3);
  let text = '';
  if (side === 'response') text = response(next, way === 1);
  else for (let count = 1 + next(3); count > 0; count--) text += request(next, way === 1);
  return Buffer.from(way === 2 ? bend(next, text) : text, 'latin1');
}

/** Where to cut: nowhere, at a few places, or everywhere. */
export function cutsFor(next: Random, length: number): number[] {
  if (next(4) === 0) return Array.from({ length }, (_, at) => at);
  return Array.from({ length: next(5) }, () => next(length + 1)).sort((a, b) => a - b);
}
