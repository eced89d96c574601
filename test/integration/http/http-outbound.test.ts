import http from 'node:http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HttpMesh } from './mesh.ts';

let mesh: HttpMesh;
beforeEach(() => {
  mesh = new HttpMesh();
});
afterEach(() => mesh.close());

const until = (condition: () => unknown) =>
  vi.waitFor(() => expect(condition()).toBeTruthy(), { timeout: 10_000, interval: 5 });

describe('requests and answers', () => {
  it('are carried with what identifies them, and written down', async () => {
    let seen: http.IncomingHttpHeaders = {};
    await mesh.serve((request, response) => {
      seen = request.headers;
      response.end('hello');
    });
    const answer = await mesh.request('/path?q=1', { headers: { host: 'web', 'x-forwarded-for': '1.2.3.4' } });
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
});
