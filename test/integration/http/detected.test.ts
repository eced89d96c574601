import http from 'node:http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HttpMesh } from './mesh.ts';

let mesh: HttpMesh;
beforeEach(() => {
  mesh = new HttpMesh();
  mesh.protocol = 'auto';
});
afterEach(() => mesh.close());

const until = (condition: () => unknown) =>
  vi.waitFor(() => expect(condition()).toBeTruthy(), { timeout: 10_000, interval: 5 });

describe('a service of which nobody says what it speaks', () => {
  it('has requests on the way that was opened for its first connection, and each to its turn', async () => {
    for (const name of ['one', 'two']) await mesh.serve((_request, response) => response.end(name));
    // The same for every connection, as in a catalogue that does not change.
    mesh.shared = { kind: 'service', service: mesh.service };
    const said: string[] = [];
    const rounds = 6;
    for (let round = 0; round < rounds; round++) {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
      said.push((await mesh.request('/', { agent })).text);
      agent.destroy();
    }
    expect(said.filter((name) => name === 'one')).toHaveLength(rounds / 2);
    // One while the first was looked at; HTTP does the rest by itself, as channels are there.
    expect(mesh.dialled).toBe(2);
    await until(() => mesh.records.length === rounds);
    for (const record of mesh.records)
      expect(record).toMatchObject({ service: 'web', status: 200, attempts: 1 });
    expect(mesh.records.map(({ reused }) => reused)).toEqual([false, false, true, true, true, true]);
    expect(mesh.detected).toEqual(new Array(rounds).fill('http'));
  });

  it('keeps its channels for the requests that follow, and its connections, also when the catalogue changes', async () => {
    await mesh.serve((request, response) => request.pipe(response));
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (const text of ['first', 'second', 'third']) {
      const answer = await mesh.request('/', { agent, method: 'POST' }, text);
      expect([answer.text, answer.headers.connection]).toEqual([text, undefined]);
      mesh.publish();
    }
    await until(() => mesh.records.length === 3);
    expect(mesh.records.map(({ reused }) => reused)).toEqual([false, true, true]);
    expect(mesh.dialled).toBe(1);
    // What says another protocol from now on is somebody else's to carry.
    mesh.protocol = 'tcp';
    mesh.publish();
    expect((await mesh.request('/', { agent, method: 'POST' }, 'last')).headers.connection).toBe('close');
    agent.destroy();
  });

  it('gets its first bytes in any pieces, pipelined and with an end behind them', async () => {
    const targets: (string | undefined)[] = [];
    await mesh.serve((request, response) => {
      targets.push(request.url);
      response.end('ok');
    });
    const text = ['/a', '/b', '/c'].map((path) => `GET ${path} HTTP/1.1\r\nhost: web\r\n\r\n`).join('');
    for (const at of [3, 20, text.length - 1]) {
      targets.length = 0;
      const caller = mesh.caller();
      caller.write(text.slice(0, at));
      await new Promise((resolve) => setImmediate(resolve));
      caller.socket.end(text.slice(at));
      await until(() => caller.text.match(/^ok/gm) ?? caller.text.split('200 OK').length === 4);
      await until(() => targets.length === 3);
      expect(targets).toEqual(['/a', '/b', '/c']);
    }
  });

  it('is told by 503 that nobody is there, where it speaks HTTP', async () => {
    const gone = await mesh.serve(() => {});
    gone.close();
    await new Promise((resolve) => gone.once('close', resolve));
    const answer = await mesh.request('/');
    expect([answer.statusCode, answer.headers['mesh-error']]).toEqual([503, 'refused']);
    const other = mesh.exact('\0');
    await until(() => other.close === 'reset');
    expect(mesh.connections).toMatchObject([{ reason: 'refused' }]);
  });

  it('carries what is no HTTP, and a server that speaks first', async () => {
    await mesh.raw((socket) => {
      socket.write('220 ready\r\n');
      socket.pipe(socket);
    });
    const caller = mesh.caller();
    await until(() => caller.text === '220 ready\r\n');
    caller.write('GET / HTTP/1.1\r\nHost: web\r\n\r\n');
    await until(() => caller.text.endsWith('Host: web\r\n\r\n'));
    caller.socket.end();
    await until(() => mesh.connections.length === 1);
    expect(mesh.records).toEqual([]);
    expect(mesh.detected).toEqual(['server-first']);
  });
});
