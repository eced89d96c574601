import http from 'node:http';
import type net from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HttpMesh } from './mesh.ts';

let mesh: HttpMesh;
beforeEach(() => {
  mesh = new HttpMesh();
});
afterEach(() => mesh.close());

const until = (condition: () => unknown) =>
  vi.waitFor(() => expect(condition()).toBeTruthy(), { timeout: 10_000, interval: 5 });

/** Answers each request that a raw server gets (without content) with what `answer` says for it. */
function answering(answer: (head: string, socket: net.Socket) => string | undefined) {
  return (socket: net.Socket): void => {
    let text = '';
    socket.on('data', (piece) => {
      text += piece.toString('latin1');
      for (let at = text.indexOf('\r\n\r\n'); at >= 0; at = text.indexOf('\r\n\r\n')) {
        const head = text.slice(0, at);
        text = text.slice(at + 4);
        const reply = answer(head, socket);
        if (reply !== undefined) socket.write(reply);
      }
    });
  };
}

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

describe('requests and answers', () => {
  it('are carried with what identifies them, and written down', async () => {
    let seen: http.IncomingHttpHeaders = {};
    await mesh.serve((request, response) => {
      seen = request.headers;
      response.end('hello');
    });
    const answer = await mesh.request('/path?q=1', {
      headers: { host: 'web', 'x-forwarded-for': '1.2.3.4' },
    });
    expect(answer.statusCode).toBe(200);
    expect(answer.text).toBe('hello');
    expect(seen).toMatchObject({
      host: 'web',
      via: '1.1 node-a',
      'x-forwarded-for': '1.2.3.4, 127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': 'web',
    });
    const [record] = mesh.records;
    expect(record).toMatchObject({
      ...{ service: 'web', method: 'GET', target: '/path?q=1', authority: 'web', status: 200 },
      ...{ responseBytes: 5, requestBytes: 0, attempts: 1, reused: false, reason: 'done', path: 'local' },
    });
    expect(record!.id).toMatch(/^0-1\.1$/);
    expect(seen['traceparent']).toContain(record!.traceId);
  });

  it('of one connection go to one instance after the other, on channels that stay', async () => {
    const hits = [0, 0];
    for (const index of [0, 1]) {
      await mesh.serve((_request, response) => {
        hits[index]!++;
        response.end('x');
      });
    }
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 10; i++) await mesh.request('/', { agent });
    agent.destroy();
    expect(hits).toEqual([5, 5]);
    expect(mesh.dialled).toBe(2);
    expect(mesh.records.map(({ reused }) => reused)).toEqual([false, false, ...Array(8).fill(true)]);
    await until(() => mesh.connections.length === 1);
    expect(mesh.connections[0]).toMatchObject({ reason: 'done', service: 'web' });
    expect(mesh.active).toBe(0);
  });

  it('go to the instance that the caller named', async () => {
    for (const name of ['a', 'b']) await mesh.serve((_request, response) => response.end(name));
    mesh.only = mesh.instances[1];
    for (let i = 0; i < 3; i++) expect((await mesh.request('/')).text).toBe('b');
  });

  it('of a pipeline are answered in their order', async () => {
    await mesh.serve((request, response) => {
      setTimeout(() => response.end(request.url), request.url === '/1' ? 50 : 0);
    });
    const caller = mesh.caller();
    const paths = Array.from({ length: 20 }, (_, i) => `/${i + 1}`);
    caller.write(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: web\r\n\r\n`).join(''));
    await until(() => caller.text.endsWith('/20'));
    expect(caller.text.match(/\r\n\r\n(\/\d+)/g)?.map((text) => text.trim())).toEqual(paths);
  });

  it('have content, chunked both ways, with trailers', async () => {
    await mesh.serve((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => {
        response.setHeader('trailer', 'x-sum');
        response.write(Buffer.concat(pieces));
        response.addTrailers({ 'x-sum': request.trailers['x-in'] ?? 'none' });
        response.end();
      });
    });
    const caller = mesh.caller();
    caller.write(
      'POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    for (const byte of '5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-In: yes\r\n\r\n') {
      caller.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => caller.text.endsWith('x-sum: yes\r\n\r\n'));
    expect(caller.text).toContain('\r\nb\r\nhello world\r\n0\r\n');
    expect(mesh.records[0]).toMatchObject({ requestBytes: 11, responseBytes: 11, status: 200 });
  });

  it('may be large both ways at once', async () => {
    await mesh.serve((request, response) => request.pipe(response));
    const body = Buffer.alloc(8 << 20, 'abcdefghij');
    const answer = await mesh.request(
      '/',
      { method: 'POST', headers: { 'content-length': body.length } },
      body,
    );
    expect(answer.text === body.toString()).toBe(true);
    expect(mesh.records[0]).toMatchObject({ requestBytes: body.length, responseBytes: body.length });
  });

  it('wait for 100 Continue', async () => {
    let continued = 0;
    const server = await mesh.serve((request, response) => request.pipe(response));
    server.on('checkContinue', (request, response) => {
      continued++;
      response.writeContinue();
      request.pipe(response);
    });
    const caller = mesh.caller();
    caller.write('PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n');
    await until(() => caller.text === 'HTTP/1.1 100 Continue\r\n\r\n');
    caller.write('body');
    await until(() => caller.text.includes('body'));
    expect(continued).toBe(1);
    expect(caller.text).not.toContain('connection: close');
  });

  it('are not followed by another where the content was never asked for', async () => {
    const server = await mesh.serve(() => {});
    server.on('checkContinue', (_request, response) => {
      response.writeHead(417, { 'content-length': 0 });
      response.end();
    });
    const caller = mesh.caller();
    caller.write('PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n');
    await until(() => caller.ended);
    expect(caller.text).toMatch(/^HTTP\/1\.1 417 .*\r\nconnection: close\r\n\r\n$/s);
  });

  it('pass interim answers on', async () => {
    await mesh.serve((_request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      response.end('x');
    });
    const caller = mesh.caller();
    caller.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.text.includes('200 OK'));
    expect(caller.text).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nlink: /i);
  });

  it.each([
    ['HEAD / HTTP/1.1', 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n'],
    ['GET / HTTP/1.1', 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['GET / HTTP/1.1', 'HTTP/1.1 304 Not Modified\r\netag: "x"\r\ncontent-length: 5\r\n\r\n'],
  ])('%s without content leaves the connection usable: %s', async (line, reply) => {
    await mesh.raw(answering((head) => (head.startsWith(line) ? reply : OK)));
    const caller = mesh.caller();
    caller.write(`${line}\r\nHost: web\r\n\r\nPOST /2 HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n`);
    await until(() => caller.text.endsWith('ok'));
    expect(caller.text.startsWith(reply.slice(0, 20))).toBe(true);
    expect(caller.text.slice(caller.text.indexOf('\r\n\r\n') + 4)).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(mesh.dialled).toBe(1);
  });

  it('that end with their connection come in chunks', async () => {
    await mesh.raw(
      answering((_head, socket) => {
        socket.end('HTTP/1.1 200 OK\r\n\r\nuntil the end');
        return undefined;
      }),
    );
    const caller = mesh.caller();
    caller.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.text.endsWith('0\r\n\r\n'));
    expect(caller.text).toMatch(/transfer-encoding: chunked\r\n\r\nd\r\nuntil the end\r\n/);
    expect(caller.ended).toBe(false);
  });

  it('of HTTP/1.0 are answered without chunks, and kept alive where that was asked for', async () => {
    await mesh.serve((request, response) => {
      if (request.url === '/chunked') response.write('a');
      response.end('b');
    });
    const caller = mesh.caller();
    caller.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
    await until(() => caller.text.endsWith('\r\n\r\nb'));
    expect(caller.text).toContain('connection: keep-alive');
    caller.write('GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
    await until(() => caller.ended);
    expect(caller.text.endsWith('connection: close\r\n\r\nab')).toBe(true);
  });

  it('are answered to a caller that has ended its half', async () => {
    await mesh.serve((_request, response) => void setTimeout(() => response.end('late'), 30));
    const caller = mesh.caller();
    caller.socket.end('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.ended);
    expect(caller.text.endsWith('late')).toBe(true);
    await until(() => mesh.connections.length === 1);
    expect(mesh.connections[0]!.reason).toBe('done');
  });

  it('switch protocols, with the bytes that came along', async () => {
    await mesh.raw(
      answering((_head, socket) => {
        socket.removeAllListeners('data');
        socket.on('data', (piece) => socket.write(`<${piece.toString()}>`));
        socket.on('end', () => socket.end('bye'));
        return 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nwelcome';
      }),
    );
    const caller = mesh.caller();
    caller.write('GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    await until(() => caller.text.endsWith('welcome'));
    caller.write('GET / HTTP/1.1\r\n\r\n');
    await until(() => caller.text.endsWith('<GET / HTTP/1.1\r\n\r\n>'));
    caller.socket.end();
    await until(() => caller.ended);
    await until(() => mesh.records.length === 1);
    expect(caller.text.endsWith('bye')).toBe(true);
    expect(mesh.records[0]).toMatchObject({
      status: 101,
      reason: 'done',
      requestBytes: 18,
      responseBytes: 30,
    });
    await until(() => mesh.connections.length === 1);
    expect(mesh.active).toBe(0);
  });
});

describe('a slow reader', () => {
  it('slows the server down', async () => {
    const piece = Buffer.alloc(1 << 20, 'x');
    let written = 0;
    await mesh.serve((_request, response) => {
      const more = (): void => {
        while (written < 200) {
          written++;
          if (!response.write(piece)) return;
        }
        response.end();
      };
      response.on('drain', more);
      more();
    });
    const caller = mesh.caller();
    caller.socket.pause();
    caller.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    let last = -1;
    await vi.waitFor(
      () => {
        const stalled = written > 0 && written === last;
        last = written;
        expect(stalled).toBe(true);
      },
      { timeout: 10_000, interval: 200 },
    );
    expect(written).toBeLessThan(60);
    expect(mesh.poller.heldBytes).toBeLessThan(4 << 20);
    let received = 0;
    caller.socket.removeAllListeners('data');
    caller.socket.on('data', (bytes) => {
      received += bytes.length;
    });
    caller.socket.resume();
    await until(() => received > 200 << 20);
    await until(() => mesh.records.length === 1);
    expect(mesh.records[0]).toMatchObject({ responseBytes: 200 << 20, reason: 'done' });
  });

  it('of requests slows the caller down', async () => {
    let server: net.Socket | undefined;
    await mesh.raw((socket) => {
      socket.pause();
      server = socket;
    });
    const caller = mesh.caller();
    const piece = Buffer.alloc(1 << 20, 'x');
    caller.write(`PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: ${100 << 20}\r\n\r\n`);
    for (let i = 0; i < 100; i++) caller.write(piece);
    let last = -1;
    await vi.waitFor(
      () => {
        const sent = caller.socket.bytesWritten - caller.socket.writableLength;
        const stalled = sent > 0 && sent === last && server !== undefined;
        last = sent;
        expect(stalled).toBe(true);
      },
      { timeout: 10_000, interval: 200 },
    );
    expect(mesh.poller.heldBytes).toBeLessThan(4 << 20);
    let got = 0;
    server!.on('data', (bytes) => {
      got += bytes.length;
      if (got > 100 << 20) server!.write(OK);
    });
    server!.resume();
    await until(() => caller.text.endsWith('ok'));
    expect(mesh.records[0]).toMatchObject({ requestBytes: 100 << 20, status: 200 });
  });
});

describe('what goes wrong', () => {
  it('in a request is answered with its rule, and ends the connection', async () => {
    await mesh.raw(() => {});
    const caller = mesh.caller();
    caller.write('GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n');
    await until(() => caller.ended);
    expect(caller.text).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n(.*\r\n)*mesh-error: length-and-coding\r\n/);
    expect(mesh.dialled).toBe(0);
    expect(mesh.records[0]).toMatchObject({ status: 400, reason: 'length-and-coding', path: 'none' });
    expect(mesh.begun).toBe(1);
  });

  it('within the content is answered, and the server never sees a complete request', async () => {
    let aborted = false;
    await mesh.serve((request) => {
      request.on('aborted', () => {
        aborted = true;
      });
      request.resume();
    });
    const caller = mesh.caller();
    caller.write('POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n');
    await until(() => mesh.dialled === 1);
    caller.write('zz\r\n');
    await until(() => caller.ended && aborted);
    expect(caller.text).toContain('mesh-error: chunk-size');
    expect(mesh.records[0]).toMatchObject({ status: 400, reason: 'chunk-size', requestBytes: 5 });
  });

  it('is 503 without an instance, on a connection that stays', async () => {
    const caller = mesh.caller();
    caller.write('GET /1 HTTP/1.1\r\nHost: web\r\n\r\n'.repeat(50));
    await until(() => caller.text.split('HTTP/1.1 503').length === 51);
    expect(caller.text).toContain('mesh-error: no-instance');
    expect(caller.ended).toBe(false);
    expect(mesh.records).toHaveLength(50);
  });

  it('is 501 for CONNECT', async () => {
    const caller = mesh.caller();
    caller.write('CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n');
    await until(() => caller.ended);
    expect(caller.text).toMatch(/^HTTP\/1\.1 501 /);
  });

  it('is 503 where nobody listens, after all instances were tried', async () => {
    for (let i = 0; i < 2; i++) await new Promise((r) => void mesh.raw(() => {}).then((s) => s.close(r)));
    const answer = await mesh.request('/');
    expect(answer.statusCode).toBe(503);
    expect(answer.headers['mesh-error']).toBe('refused');
    expect(mesh.records[0]).toMatchObject({ status: 503, reason: 'refused' });
  });

  it('is passed by at another instance while nothing can have been heard', async () => {
    const dead = await mesh.raw(() => {});
    await new Promise((resolve) => dead.close(resolve));
    await mesh.serve((request, response) => request.pipe(response));
    for (let i = 0; i < 4; i++) {
      const answer = await mesh.request('/', { method: 'POST' }, 'content');
      expect(answer.text).toBe('content');
    }
    expect(mesh.records.some(({ attempts }) => attempts === 2)).toBe(true);
  });

  it('is 502 when a server hangs up before its answer', async () => {
    await mesh.raw(answering((_head, socket) => void socket.resetAndDestroy()));
    const answer = await mesh.request('/');
    expect(answer.statusCode).toBe(502);
    expect(answer.headers['mesh-error']).toBe('reset');
  });

  it('is 502 for an answer that breaks a rule', async () => {
    let broken = false;
    await mesh.raw((socket) => {
      answering(() => 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy')(socket);
      socket.on('close', () => {
        broken = true;
      });
    });
    const answer = await mesh.request('/');
    expect(answer.statusCode).toBe(502);
    expect(answer.headers['mesh-error']).toBe('length-repeated');
    await until(() => broken);
  });

  it.each([
    ['with a length', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf'],
    ['in chunks', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
  ])('in the middle of an answer %s is a reset for the caller', async (_how, reply) => {
    await mesh.raw(
      answering((_head, socket) => {
        socket.end(reply);
        return undefined;
      }),
    );
    const caller = mesh.exact('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.close);
    expect(caller.close).toBe('reset');
    expect(caller.text).not.toContain('\r\n0\r\n');
    expect(mesh.records[0]).toMatchObject({ status: 200, reason: 'reset' });
  });

  it('at the caller is a reset for the server', async () => {
    let error: string | undefined;
    let reached = false;
    await mesh.raw((socket) => {
      socket.on('data', () => {
        reached = true;
      });
      socket.on('error', (why: NodeJS.ErrnoException) => {
        error = why.code;
      });
    });
    const caller = mesh.caller();
    caller.write('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nhalf');
    await until(() => reached);
    caller.socket.resetAndDestroy();
    await until(() => error === 'ECONNRESET');
    await until(() => mesh.connections.length === 1);
    expect(mesh.records[0]).toMatchObject({ reason: 'client-reset', status: 0, requestBytes: 4 });
    expect(mesh.active).toBe(0);
  });

  it('leaves an early answer readable, and the rest of the request goes on', async () => {
    let got = 0;
    await mesh.serve((request, response) => {
      request.on('data', (piece: Buffer) => {
        got += piece.length;
      });
      response.end('early');
    });
    const caller = mesh.caller();
    caller.write('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 8\r\n\r\nhalf');
    await until(() => caller.text.includes('early'));
    caller.write('more');
    await until(() => got === 8);
    caller.write('GET /2 HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.text.split('early').length === 3);
    expect(mesh.dialled).toBe(1);
  });
});

describe('channels that are kept', () => {
  /** Answers once on each connection, and hangs up on the second request of one. */
  function moody(requests: string[]) {
    return (socket: net.Socket): void => {
      let count = 0;
      answering((head) => {
        requests.push(head.split('\r\n', 1)[0]!);
        if (++count === 1) return OK;
        socket.resetAndDestroy();
        return undefined;
      })(socket);
    };
  }

  it('are tried once more when the server hung up just then, where the method allows it', async () => {
    const requests: string[] = [];
    await mesh.raw(moody(requests));
    await mesh.request('/1');
    const second = await mesh.request('/2', { method: 'PUT' }, 'content');
    expect(second.text).toBe('ok');
    expect(requests).toEqual(['GET /1 HTTP/1.1', 'PUT /2 HTTP/1.1', 'PUT /2 HTTP/1.1']);
    expect(mesh.records[1]).toMatchObject({ attempts: 2, status: 200, reused: false });
  });

  it('are not where it does not', async () => {
    const requests: string[] = [];
    await mesh.raw(moody(requests));
    await mesh.request('/1');
    const second = await mesh.request('/2', { method: 'POST' });
    expect(second.statusCode).toBe(502);
    expect(requests).toHaveLength(2);
  });

  it('are not used when their server has ended them', async () => {
    const sockets: net.Socket[] = [];
    await mesh.raw((socket) => {
      sockets.push(socket);
      answering(() => OK)(socket);
    });
    await mesh.request('/1');
    sockets[0]!.end();
    await until(() => mesh.http.pool.size === 0);
    await mesh.request('/2', { method: 'POST' });
    expect(mesh.dialled).toBe(2);
  });

  it('are reset when a server speaks unasked', async () => {
    const sockets: net.Socket[] = [];
    await mesh.raw((socket) => {
      sockets.push(socket);
      answering(() => OK)(socket);
    });
    await mesh.request('/1');
    sockets[0]!.write('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil');
    await until(() => mesh.http.pool.size === 0);
    expect((await mesh.request('/2')).text).toBe('ok');
    expect(mesh.dialled).toBe(2);
  });

  it('end with their instance: drained, gone, or moved', async () => {
    await mesh.serve((_request, response) => response.end('x'));
    mesh.publish();
    await mesh.request('/');
    expect(mesh.http.pool.size).toBe(1);
    const [instance] = mesh.instances;
    mesh.instances = [{ ...instance!, weight: 1 }];
    mesh.publish();
    expect(mesh.http.pool.size).toBe(1);
    mesh.instances = [{ ...instance!, draining: true }];
    mesh.publish();
    expect(mesh.http.pool.size).toBe(0);
  });

  it('are ended before their server would do so', async () => {
    let ended = 0;
    await mesh.raw((socket) => {
      answering(() => 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nKeep-Alive: timeout=1\r\n\r\nok')(socket);
      socket.on('end', () => {
        ended = performance.now();
        socket.end();
      });
    });
    const began = performance.now();
    await mesh.request('/');
    expect(mesh.http.pool.size).toBe(1);
    await until(() => ended > 0);
    expect(ended - began).toBeLessThan(1000);
    expect(mesh.http.pool.size).toBe(0);
  });

  it('are gone when the agent drains, and callers that wait are let go', async () => {
    await mesh.serve((_request, response) => response.end('x'));
    const idle = mesh.caller();
    const fresh = mesh.caller();
    idle.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    fresh.write('GET / HTTP/1.1\r\n');
    await until(() => idle.text.endsWith('x') && mesh.live.size === 2);
    mesh.http.drain();
    await until(() => idle.ended);
    expect(mesh.http.pool.size).toBe(0);
    fresh.write('Host: web\r\n\r\n');
    await until(() => fresh.ended);
    expect(fresh.text).toMatch(/connection: close\r\n\r\nx$/);
  });
});
