import { describe, expect, it } from 'vitest';
import { MAX_HELLO, readHello } from '../../../src/detection/client-hello.ts';
import { extension, helloMessage, realHello, records, serverName } from './hellos.ts';

const named = (name: string | undefined) => ({ kind: 'hello', name });

describe('readHello', () => {
  it.each([
    ['TLS 1.3', { servername: 'orders.shop.example' }, 'orders.shop.example'],
    ['TLS 1.2', { servername: 'a.b', maxVersion: 'TLSv1.2' as const }, 'a.b'],
    ['ALPN', { servername: 'h2.example', ALPNProtocols: ['h2', 'http/1.1'] }, 'h2.example'],
    ['no name', {}, undefined],
  ])('finds the name in the hello of a real client: %s', async (_what, options, name) => {
    expect(readHello(await realHello(options))).toEqual(named(name));
  });

  it('wants more at every place before the end, and not after it', async () => {
    const hello = await realHello({ servername: 'split.example' });
    for (let at = 0; at < hello.length; at++)
      expect(readHello(hello.subarray(0, at)).kind, `${at} bytes`).toBe('more');
    expect(readHello(Buffer.concat([hello, Buffer.from([20, 3, 3, 0, 1, 1])]))).toEqual(
      named('split.example'),
    );
  });

  it('reads a hello that comes in several records', () => {
    const message = helloMessage([extension(43, Buffer.alloc(5)), serverName('Pieces.Example.')]);
    for (const most of [1, 2, 5, 40, message.length])
      expect(readHello(records(message, most)), `${most}`).toEqual(named('pieces.example'));
  });

  it.each([
    ['no extensions', helloMessage(undefined)],
    ['no server_name', helloMessage([extension(16, Buffer.alloc(4))])],
    ['a name of another type', helloMessage([serverName('x.example', 1)])],
    ['an address', helloMessage([serverName('a b')])],
    ['a control character', helloMessage([serverName('a\0.example')])],
    ['an empty name', helloMessage([serverName('')])],
    ['a name that is too long', helloMessage([serverName('a'.repeat(300))])],
  ])('is a hello without a name: %s', (_what, message) => {
    expect(readHello(records(message))).toEqual(named(undefined));
  });

  it.each([
    ['an alert', Buffer.from([21, 3, 3, 0, 2, 1, 0])],
    ['SSL 2', Buffer.from([0x80, 0x2e, 1, 3, 1])],
    ['a server hello', Buffer.from([22, 3, 3, 0, 4, 2, 0, 0, 0])],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0, 1])],
    ['a record that is too long', Buffer.from([22, 3, 1, 0xff, 0xff, 1])],
    ['a message that is too long', Buffer.from([22, 3, 1, 0, 5, 1, 0xff, 0, 0, 3])],
    [
      'a vector beyond its end',
      records(Buffer.concat([Buffer.from([1, 0, 0, 36, 3, 3]), Buffer.alloc(32), Buffer.from([9, 0])])),
    ],
    ['an extension beyond its end', records(helloMessage([Buffer.from([0, 0, 0, 9, 1])]))],
    ['half of an extension', records(helloMessage([Buffer.from([0, 0, 0])]))],
    ['a list of names beyond its end', records(helloMessage([extension(0, Buffer.from([0, 9, 0]))]))],
  ])('is no hello: %s', (_what, bytes) => {
    expect(readHello(bytes)).toEqual({ kind: 'other' });
  });

  it('gives up at its bound', () => {
    const message = helloMessage([extension(21, Buffer.alloc(MAX_HELLO - 200)), serverName('far.example')]);
    const wire = records(message, 500);
    expect(wire.length).toBeGreaterThan(MAX_HELLO);
    expect(readHello(wire.subarray(0, MAX_HELLO - 1)).kind).toBe('more');
    expect(readHello(wire.subarray(0, MAX_HELLO)).kind).toBe('other');
  });
});
