import { describe, expect, it } from 'vitest';
import type { AccessRequest } from '../../../src/access/rules.ts';
import { RequestGuard } from '../../../src/http/request-guard.ts';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { MemoryChannel, turn } from '../proxy/memory-channel.ts';

/** A guard that denies what is below /no, and everything that happens on both of its sides. */
function setup() {
  const inner = new MemoryChannel();
  const asked: string[] = [];
  const switched: AccessRequest[] = [];
  const guard = new RequestGuard(inner, 'web', {
    denial: ({ method, path }) => {
      asked.push(`${method} ${path}`);
      return path.startsWith('/no') ? 'rule x says no' : undefined;
    },
    switched: (request) => switched.push(request),
  });
  const seen = { text: '', ended: false, drains: 0, close: undefined as ChannelClose | undefined };
  guard.handler = {
    data: (bytes) => {
      seen.text += Buffer.from(bytes).toString('latin1');
    },
    end: () => {
      seen.ended = true;
    },
    drain: () => {
      seen.drains++;
    },
    close: (why) => {
      seen.close = why;
    },
  };
  guard.resume();
  return { inner, guard, seen, asked, switched };
}

const get = (path: string, more = '') => Buffer.from(`GET ${path} HTTP/1.1\r\nhost: web\r\n${more}\r\n`);
const post = (path: string, content: string, more = '') =>
  Buffer.from(
    `POST ${path} HTTP/1.1\r\nhost: web\r\ncontent-length: ${content.length}\r\n${more}\r\n${content}`,
  );
const ok = (content: string) =>
  Buffer.from(`HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\n\r\n${content}`);
const FORBIDDEN =
  /^HTTP\/1\.1 403 Forbidden\r\n(?:.*\r\n)*mesh-error: denied\r\n(?:.*\r\n)*\r\nmesh-node: rule x says no\n$/;

describe('RequestGuard', () => {
  it('passes on what is allowed, and its answer as it is', () => {
    const { inner, guard, seen, asked } = setup();
    expect(guard.write(post('/yes?q', 'hello'))).toBe(true);
    expect(asked).toEqual(['POST /yes?q']);
    expect(inner.text).toBe('POST /yes?q HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello');
    inner.handler.data(ok('fine'));
    expect(seen.text).toBe(ok('fine').toString());
  });

  it('answers 403 itself, and the connection stays', async () => {
    const { inner, guard, seen } = setup();
    guard.write(post('/no', 'secret'));
    expect(seen.text, 'not within the call').toBe('');
    await turn();
    expect(seen.text).toMatch(FORBIDDEN);
    expect(inner.text).toBe('');
    guard.write(get('/yes'));
    expect(inner.text).toBe('GET /yes HTTP/1.1\r\nhost: web\r\n\r\n');
    expect([inner.ended, seen.ended]).toEqual([false, false]);
  });

  it('forwards no byte before its request has been decided, however the bytes are cut', () => {
    const whole = post('/yes', 'hello').toString();
    const head = whole.indexOf('\r\n\r\n') + 4;
    const { inner, guard } = setup();
    for (let at = 0; at < whole.length; at++) {
      guard.write(Buffer.from(whole[at]!));
      if (at < head - 1) expect(inner.text).toBe('');
    }
    expect(inner.text).toBe(whole);
  });

  it('decides about a pipeline one by one, and answers in order', async () => {
    const { inner, guard, seen, asked } = setup();
    const room = guard.write(Buffer.concat([get('/yes1'), get('/no'), get('/yes2')]));
    expect(room).toBe(false);
    expect(asked).toEqual(['GET /yes1']);
    await turn();
    expect(seen.text, 'not before its turn').toBe('');
    inner.handler.data(ok('1'));
    expect(asked).toEqual(['GET /yes1', 'GET /no']);
    await turn();
    expect(asked).toEqual(['GET /yes1', 'GET /no', 'GET /yes2']);
    expect(seen.drains).toBe(1);
    inner.handler.data(ok('2'));
    const statuses = [...seen.text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
    expect(statuses).toEqual(['200', '403', '200']);
    expect(inner.text).not.toContain('/no');
  });

  it('keeps its answer while the reader takes none', async () => {
    const { guard, seen } = setup();
    guard.pause();
    guard.write(get('/no'));
    await turn();
    expect(seen.text).toBe('');
    guard.resume();
    await turn();
    expect(seen.text).toMatch(FORBIDDEN);
  });

  it('drops the content of what it denied, also in chunks that come later', async () => {
    const { inner, guard, seen } = setup();
    guard.write(
      Buffer.from('POST /no HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n'),
    );
    await turn();
    expect(seen.text).toMatch(FORBIDDEN);
    guard.write(Buffer.from('3\r\nGET\r\n0\r\n\r\nGET /yes HTTP/1.1\r\nhost: web\r\n\r\n'));
    expect(inner.text).toBe('GET /yes HTTP/1.1\r\nhost: web\r\n\r\n');
  });

  it('ends the connection where the content of a denied request may come or not', async () => {
    const { inner, guard, seen } = setup();
    guard.write(
      Buffer.from('POST /no HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n'),
    );
    await turn();
    expect(seen.text).toContain('connection: close');
    expect([seen.ended, inner.ended]).toEqual([true, true]);
    guard.write(get('/yes'));
    expect(inner.text).toBe('');
  });

  it.each([
    [
      'a request that is said in two ways',
      'POST /yes HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n',
    ],
    ['what is no HTTP', '\x16\x03\x01\x02\x00'],
    ['a bare line feed', 'GET /yes HTTP/1.1\nhost: a\n\n'],
  ])('refuses %s, and nothing of it is passed on', async (_what, bytes) => {
    const { inner, guard, seen } = setup();
    guard.write(Buffer.from(bytes, 'latin1'));
    guard.write(get('/yes'));
    await turn();
    expect(seen.text).toMatch(/^HTTP\/1\.1 (?:400|501) .*\r\n/);
    expect(seen.text.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect([inner.text, seen.ended, inner.ended]).toEqual(['', true, true]);
  });

  it('resets both sides when a request breaks off in the wrong way', async () => {
    const { inner, guard, seen } = setup();
    guard.write(
      Buffer.from('POST /yes HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX'),
    );
    await turn();
    expect(inner.resetWith).toBe('protocol');
    expect(seen.close).toMatchObject({ reason: 'protocol', delivered: true });
  });

  it.each([
    ['an answer that nobody asked for', undefined, 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n', ''],
    [
      'a second answer',
      get('/yes'),
      'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
      'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n',
    ],
    ['nonsense', get('/yes'), 'hello\r\n\r\n', ''],
  ])('resets both sides on %s', async (_what, request, answer, passed) => {
    const { inner, guard, seen } = setup();
    if (request !== undefined) guard.write(request);
    inner.handler.data(Buffer.from(answer));
    await turn();
    expect(seen.text).toBe(passed);
    expect([inner.resetWith, seen.close?.reason]).toEqual(['protocol', 'protocol']);
  });

  it('stops reading where a WebSocket begins, and says so', () => {
    const { inner, guard, seen, switched } = setup();
    guard.write(get('/yes', 'upgrade: websocket\r\nconnection: upgrade\r\n'));
    expect(inner.text).toContain('upgrade: websocket');
    const answer =
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x01a';
    inner.handler.data(Buffer.from(answer, 'latin1'));
    expect(seen.text).toBe(answer);
    expect(switched).toEqual([{ method: 'GET', path: '/yes' }]);
    guard.write(get('/no'));
    expect(inner.text).toContain('GET /no');
    guard.end();
    expect(inner.ended).toBe(true);
  });

  it('offers no other protocol, in which requests would not be read', () => {
    const { inner, guard } = setup();
    guard.write(
      get(
        '/yes',
        'upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n',
      ),
    );
    expect(inner.text).toBe('GET /yes HTTP/1.1\r\nhost: web\r\n\r\n');
  });

  it('takes no CONNECT, behind which requests would not be read', async () => {
    const { inner, guard, seen } = setup();
    guard.write(Buffer.from('CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\nGET /no HTTP/1.1\r\n\r\n'));
    await turn();
    expect(seen.text).toMatch(/^HTTP\/1\.1 403 /);
    expect([inner.text, seen.ended]).toEqual(['', true]);
  });

  it('says that nothing follows when the caller says so, after the answer', () => {
    const { inner, guard, seen } = setup();
    guard.write(get('/yes', 'connection: close\r\n'));
    expect(inner.text).toContain('connection: close');
    expect(inner.ended).toBe(false);
    inner.handler.data(ok('x'));
    expect([inner.ended, seen.ended]).toEqual([true, true]);
  });

  it('half-closes towards the instance only between requests', () => {
    const { inner, guard } = setup();
    guard.write(get('/yes'));
    guard.end();
    expect(inner.ended).toBe(false);
    inner.handler.data(ok('x'));
    expect(inner.ended).toBe(true);
  });

  it('hands backpressure on', () => {
    const { inner, guard, seen } = setup();
    inner.full = true;
    expect(guard.write(get('/yes'))).toBe(false);
    inner.full = false;
    inner.handler.drain();
    expect(seen.drains).toBe(1);
  });

  it.each([
    'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx',
    'HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx',
  ])('asks nothing more after an answer that is the last one: %j', (answer) => {
    const { inner, guard, seen } = setup();
    guard.write(Buffer.concat([get('/yes'), get('/yes2')]));
    inner.handler.data(Buffer.from(answer));
    guard.write(get('/yes3'));
    expect(seen.text).toBe(answer);
    expect(inner.text).toBe(get('/yes').toString());
    expect([inner.ended, seen.ended]).toEqual([true, true]);
  });

  it('waits for the end of an instance after its last answer, also when nobody reads, and for nothing else', () => {
    const { inner, guard, seen } = setup();
    guard.write(get('/yes', 'connection: close\r\n'));
    guard.pause();
    inner.handler.data(ok('x'));
    guard.pause();
    expect([inner.paused, inner.ended]).toEqual([false, true]);
    inner.handler.data(Buffer.from('more'));
    expect(inner.resetWith).toBe('protocol');
    expect(seen.text).toBe(ok('x').toString());
  });

  it('lets go of an instance that ends its side with the answer, or within it', () => {
    for (const answer of [
      'HTTP/1.1 200 OK\r\n\r\nall of it',
      'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx',
    ]) {
      const { inner, guard, seen } = setup();
      guard.write(get('/yes'));
      inner.handler.data(Buffer.from(answer));
      inner.handler.end();
      expect([seen.text, seen.ended, inner.ended]).toEqual([answer, true, true]);
      guard.write(get('/yes'));
      guard.end();
      inner.close({ reason: 'done', delivered: true });
      expect(seen.close?.reason).toBe('done');
    }
  });

  it('lets go of an instance that ends its side before it has all of the request', () => {
    const { inner, guard, seen } = setup();
    guard.write(Buffer.from('POST /yes HTTP/1.1\r\nhost: web\r\ncontent-length: 9\r\n\r\nab'));
    inner.handler.data(ok('enough'));
    inner.handler.end();
    expect([seen.ended, inner.ended]).toEqual([true, true]);
    expect(guard.write(Buffer.from('cdefghi'))).toBe(true);
  });

  it('still gives its own answer when the instance ends its side meanwhile', async () => {
    const { inner, guard, seen } = setup();
    guard.write(get('/no'));
    inner.handler.end();
    expect(seen.ended).toBe(false);
    await turn();
    expect(seen.text).toMatch(FORBIDDEN);
    expect([seen.ended, inner.ended]).toEqual([true, true]);
  });

  it.each([
    ['that was allowed', '/yes', 'protocol', ''],
    ['that was denied', '/no', undefined, 'HTTP/1.1 403'],
  ])(
    'waits for nothing more of a request %s when its caller ends within it',
    async (_what, path, reset, said) => {
      const { inner, guard, seen } = setup();
      guard.write(Buffer.from(`POST ${path} HTTP/1.1\r\nhost: web\r\ncontent-length: 9\r\n\r\nab`));
      guard.end();
      await turn();
      expect(inner.resetWith).toBe(reset);
      expect(inner.ended || inner.closed).toBe(true);
      expect(seen.text.slice(0, 12)).toBe(said);
    },
  );

  it('does not stop a writer for room that nobody will tell of', async () => {
    const { inner, guard, seen } = setup();
    guard.write(
      Buffer.from('POST /yes HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 4\r\n\r\nab'),
    );
    inner.handler.data(ok('enough'));
    inner.full = true;
    expect(guard.write(Buffer.from('cd'))).toBe(true);
    expect([inner.ended, seen.ended]).toEqual([true, true]);
  });

  it('ends as the instance does', () => {
    const { inner, guard, seen } = setup();
    guard.write(get('/yes'));
    inner.handler.end();
    expect(seen.ended).toBe(true);
    inner.close({ reason: 'reset', delivered: true });
    expect(seen.close).toEqual({ reason: 'reset', delivered: true });
  });
});
