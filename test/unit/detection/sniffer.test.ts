import { describe, expect, it } from 'vitest';
import { MAX_SNIFFED, Sniffer } from '../../../src/detection/sniffer.ts';
import { realHello } from './hellos.ts';

/** What a sniffer says of these pieces, one after the other. */
function sniff(pieces: readonly (string | Uint8Array)[], names = false) {
  const sniffer = new Sniffer(names);
  return pieces.map((piece) => sniffer.push(Buffer.from(piece as string, 'latin1')));
}

const last = (pieces: readonly (string | Uint8Array)[], names = false) => sniff(pieces, names).at(-1);

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

describe('Sniffer', () => {
  it.each([
    ['GET / HTTP/1.1\r\n', 'http'],
    ['\r\nGET / HTTP/1.0\r\n', 'http'],
    ['M-SEARCH * HTTP/1.1\r\n', 'http'],
    ['PROPFIND /dav HTTP/1.1\r\n', 'http'],
    ['CONNECT a:1 HTTP/1.1\r\n', 'http'],
    ['OPTIONS http://a/ HTTP/1.1\r\n', 'http'],
    [PREFACE, 'http2'],
    ['get / HTTP/1.1\r\n', 'other'],
    ['GET / HTTP/1.1\n', 'other'],
    ['GET / HTTP/2.0\r\n', 'other'],
    ['GET key\r\n', 'other'],
    ['GET  / HTTP/1.1\r\n', 'other'],
    ['OPTIONS rtsp://a/ RTSP/1.0\r\n', 'other'],
    ['REGISTER sip:a SIP/2.0\r\n', 'other'],
    ['CONNECT {"verbose":false}\r\n', 'other'],
    ['CONNECT\naccept-version:1.2\n', 'other'],
    ['HELO me\r\n', 'other'],
    ['*1\r\n$4\r\nPING\r\n', 'other'],
    ['\r\r\n', 'other'],
    ['\r\n\r\nGET / HTTP/1.1\r\n', 'other'],
    [' GET / HTTP/1.1\r\n', 'other'],
    ['PRI * HTTP/2.0\r\n\r\nSX', 'other'],
    ['SSH-2.0-OpenSSH', 'other'],
    ['\0', 'other'],
  ])('%j: %s, however it is cut', (text, protocol) => {
    expect(last([text])).toEqual({ protocol });
    expect(last([...text].filter((_, at, all) => sniff(all.slice(0, at)).at(-1) === undefined))).toEqual({
      protocol,
    });
    for (let at = 1; at < text.length; at++) {
      const [first, second] = sniff([text.slice(0, at), text.slice(at)]);
      expect(first ?? second, `cut at ${at}`).toEqual({ protocol });
    }
  });

  it.each([
    'G',
    'GET',
    'GET /',
    'GET / HTTP/1.1',
    'GET / HTTP/1.1\r',
    '\r',
    '\r\n',
    'PRI',
    'PROP',
    '\x16\x03\x01\0\xff',
  ])('waits after %j', (text) => expect(last([text])).toBeUndefined());

  it.each(['GEX', 'HELLO', 'GET\r', 'get', 'GET / X', 'STATS', '\x16\x04', '\x16\x03\x01\0\xff\x02'])(
    'does not wait after %j',
    (text) => expect(last([text])).toEqual({ protocol: 'other' }),
  );

  it('knows TLS by six bytes, and its name by the whole hello', async () => {
    const hello = await realHello({ servername: 'shop.example' });
    expect(last([hello.subarray(0, 5)])).toBeUndefined();
    expect(last([hello.subarray(0, 6)])).toEqual({ protocol: 'tls', name: undefined });
    for (let at = 1; at < hello.length; at += 7) {
      const [first, second] = sniff([hello.subarray(0, at), hello.subarray(at)], true);
      expect([first, second], `cut at ${at}`).toEqual([undefined, { protocol: 'tls', name: 'shop.example' }]);
    }
    expect(
      last(
        [...hello].map((byte) => Buffer.from([byte])),
        true,
      ),
    ).toEqual({
      protocol: 'tls',
      name: 'shop.example',
    });
  });

  it('gives up at its bounds', () => {
    expect(last(['GET /', 'a'.repeat(9000)])).toEqual({ protocol: 'other' });
    const endless = Buffer.concat([
      Buffer.from([22, 3, 1, 0x3f, 0xff, 1, 0, 0x40, 0]),
      Buffer.alloc(MAX_SNIFFED),
    ]);
    expect(sniff([endless.subarray(0, 100), endless.subarray(100, MAX_SNIFFED - 1)], true)).toEqual([
      undefined,
      undefined,
    ]);
    expect(last([endless.subarray(0, MAX_SNIFFED)], true)).toEqual({ protocol: 'tls', name: undefined });
  });
});
