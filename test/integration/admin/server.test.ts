import { existsSync, lstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type AdminServer, serveAdmin, serveMetrics } from '../../../src/admin/server.ts';
import { MeshError } from '../../../src/model/errors.ts';
import { Counters } from '../../../src/telemetry/counters.ts';
import { metrics } from '../../../src/telemetry/definitions.ts';
import { MetricsRegistry } from '../../../src/telemetry/metrics-registry.ts';
import { FakeBackend } from './fake-backend.ts';

const directory = mkdtempSync(join(tmpdir(), 'mncli-admin-'));
afterAll(() => rmSync(directory, { recursive: true }));

/** Sends bytes as they are, and reads until the other side ends. */
function raw(path: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let received = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      received += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(received));
    socket.write(text);
  });
}

async function ask(
  path: string,
  method: string,
  target: string,
): Promise<{ status: number; head: string; body: unknown }> {
  const text = await raw(path, `${method} ${target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  const [head = '', body = ''] = text.split('\r\n\r\n');
  return { status: Number(head.split(' ')[1]), head, body: body === '' ? undefined : JSON.parse(body) };
}

describe('admin API', () => {
  const path = join(directory, 'admin.sock');
  let backend: FakeBackend;
  let server: AdminServer;
  beforeEach(async () => {
    backend = new FakeBackend();
    server = await serveAdmin(path, backend);
  });
  afterEach(() => server.close(50));

  it('is a socket for owner and group only, and is gone afterwards', async () => {
    expect(statSync(path).mode & 0o777).toBe(0o660);
    await server.close();
    expect(existsSync(path)).toBe(false);
  });

  it.each([
    ['GET', '/v1/status', 200],
    ['GET', '/v1/ready', 503],
    ['GET', '/v1/services', 200],
    ['GET', '/v1/connections?limit=10000', 200],
    ['GET', '/v1/tunnels?limit=1', 200],
    ['GET', '/v1/registries', 200],
    ['GET', '/v1/rules', 200],
    ['GET', '/v1/observe?limit=1', 200],
    ['GET', '/v1/observe/proposal', 200],
    ['GET', '/v1/observe?limit=0', 400],
    ['GET', '/v1/resolve?name=orders', 200],
    ['GET', '/v1/resolve?address=10.0.0.1%3A80', 200],
    ['GET', '/v1/authz?caller=unit:front&service=orders&method=GET&port=80', 200],
    ['GET', '/v1/authz?caller=unit:front', 400],
    ['GET', '/v1/authz?caller=unit:front&service=orders&port=0', 400],
    ['GET', '/v1/authz?caller=unit:front&service=orders&__proto__=x', 400],
    ['POST', '/v1/reload', 200],
    ['POST', '/v1/drain', 200],
    ['POST', '/v1/drain?service=orders', 200],
    ['GET', '/', 404],
    ['GET', '/v1/status/', 404],
    ['GET', '/v1/../v1/status', 404],
    ['GET', '//v1/status', 404],
    ['POST', '/v1/status', 405],
    ['GET', '/v1/reload', 405],
    ['DELETE', '/v1/status', 405],
    ['GET', '/v1/status?x=1', 400],
    ['GET', '/v1/resolve', 400],
    ['GET', '/v1/resolve?name=a&address=b', 400],
    ['GET', '/v1/resolve?name=a&name=b', 400],
    ['GET', '/v1/connections?limit=0', 400],
    ['GET', '/v1/connections?limit=10001', 400],
    ['GET', '/v1/connections?limit=1e3', 400],
  ])('%s %s → %d', async (method, target, status) => {
    const answer = await ask(path, method, target);
    expect(answer.status).toBe(status);
    expect(answer.head).toContain('content-type: application/json');
    if (status >= 400 && target !== '/v1/ready') {
      expect(answer.body).toEqual({ error: { code: expect.any(String), message: expect.any(String) } });
    }
  });

  it('hands the question on as it was asked', async () => {
    await ask(path, 'GET', '/v1/resolve?address=%5Bfd00%3A%3A1%5D%3A80');
    await ask(path, 'GET', '/v1/connections?limit=7');
    await ask(path, 'POST', '/v1/drain?service=orders');
    expect(backend.asked).toEqual([{ address: '[fd00::1]:80' }, 7, 'orders']);
    expect((await ask(path, 'GET', '/v1/ready')).body).toEqual({
      ready: false,
      blockers: [{ name: 'catalogue', reason: 'no registry has answered' }],
    });
  });

  it.each([
    [new MeshError('configuration', 'operator', 'x.yaml:1:1: wrong'), 422, 'configuration'],
    [new MeshError('no-service', 'operator', 'none'), 404, 'no-service'],
    [new MeshError('overload', 'agent', 'busy'), 503, 'overload'],
    [new TypeError('ours'), 500, 'internal'],
  ])('answers a failure (%s) with %d', async (error, status, code) => {
    backend.failure = error;
    const answer = await ask(path, 'POST', '/v1/reload');
    expect(answer.status).toBe(status);
    expect(answer.body).toEqual({ error: { code, message: error.message } });
  });

  it('goes on with an upgrade once it has answered, and not when it was refused', async () => {
    const answer = await ask(path, 'POST', '/v1/upgrade');
    expect(answer.body).toEqual({ from: '1.0.0', to: '1.1.0', pid: 7, startedAt: 1 });
    while (!backend.asked.includes('proceed')) await new Promise(setImmediate);
    backend.asked.length = 0;
    backend.failure = new MeshError('configuration', 'operator', 'not this one');
    expect((await ask(path, 'POST', '/v1/upgrade')).status).toBe(422);
    expect(backend.asked).toEqual([]);
  });

  it('answers HEAD without a body', async () => {
    const answer = await ask(path, 'HEAD', '/v1/status');
    expect([answer.status, answer.body]).toEqual([200, undefined]);
  });

  it.each([
    ['nonsense', 'hello\r\n\r\n'],
    ['a huge header', `GET /v1/status HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`],
    [
      'a huge body',
      `POST /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n${'y'.repeat(100_000)}`,
    ],
  ])('survives %s', async (_, text) => {
    await raw(path, text).catch(() => '');
    expect((await ask(path, 'GET', '/v1/status')).status).toBe(200);
  });

  it('ends in time, also with a caller that holds its connection open', async () => {
    const idle = connect(path);
    idle.on('error', () => undefined);
    await new Promise((resolve) => idle.once('connect', resolve));
    idle.write('GET /v1/status HTTP/1.1\r\n');
    const ended = new Promise((resolve) => idle.once('close', resolve));
    await server.close(50);
    await ended;
  });
});

describe('a socket that is there already', () => {
  const path = join(directory, 'other.sock');
  afterEach(() => rmSync(path, { force: true }));

  it('is replaced when its owner is gone', async () => {
    const owner = createServer();
    await listening(owner, `${path}.old`);
    // A hard link stays behind when the owner unlinks its own name: exactly what a killed agent leaves.
    const { linkSync } = await import('node:fs');
    linkSync(`${path}.old`, path);
    await new Promise((resolve) => owner.close(resolve));
    expect(lstatSync(path).isSocket()).toBe(true);
    const server = await serveAdmin(path, new FakeBackend());
    expect((await ask(path, 'GET', '/v1/status')).status).toBe(200);
    await server.close();
  });

  it('is left alone while its owner answers', async () => {
    const first = await serveAdmin(path, new FakeBackend());
    await expect(serveAdmin(path, new FakeBackend())).rejects.toThrow('is served by another mesh-node');
    expect((await ask(path, 'GET', '/v1/status')).status).toBe(200);
    await first.close();
  });

  it('is left alone when it is no socket', async () => {
    writeFileSync(path, 'precious');
    await expect(serveAdmin(path, new FakeBackend())).rejects.toThrow('is in the way: it is no socket');
    expect(existsSync(path)).toBe(true);
  });
});

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve) => server.listen(path, resolve));
}

describe('metrics endpoint', () => {
  it('answers metrics and readiness and nothing else', async () => {
    const registry = new MetricsRegistry();
    const counters = new Counters();
    counters.gauge(metrics.ready).set(1);
    registry.merge('supervisor', counters.drain());
    const port = await freePort();
    const server = await serveMetrics(`127.0.0.1:${port}`, new FakeBackend(), registry);
    const at = `http://127.0.0.1:${port}`;
    const answer = await fetch(`${at}/metrics`);
    expect(answer.headers.get('content-type')).toContain('text/plain');
    expect(await answer.text()).toContain('mesh_node_ready 1\n');
    expect((await fetch(`${at}/ready`)).status).toBe(503);
    expect((await fetch(`${at}/v1/status`)).status).toBe(404);
    expect((await fetch(`${at}/metrics`, { method: 'POST' })).status).toBe(405);
    await expect(serveMetrics(`127.0.0.1:${port}`, new FakeBackend(), registry)).rejects.toThrow(
      `cannot listen on 127.0.0.1:${port}: EADDRINUSE`,
    );
    await server.close();
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
