import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { ChannelMesh } from './channel-mesh.ts';

let mesh: ChannelMesh;
beforeEach(() => {
  ChannelMesh.install();
  mesh = new ChannelMesh();
  mesh.protocol = 'auto';
});
afterAll(() => {
  vi.useRealTimers();
});

const CONNECT = 'CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n';

describe('a tunnel through the explicit proxy', () => {
  it('is an opaque connection to the service', () => {
    const caller = mesh.call(CONNECT, true);
    mesh.last.takes();
    expect(caller.text).toBe('HTTP/1.1 200 Connection Established\r\n\r\n');
    caller.says('hello');
    expect(mesh.last.text).toBe('hello');
  });

  it('is held back by rate limits of connections before an instance is looked for', () => {
    mesh.overRate = 'few';
    const caller = mesh.call(CONNECT, true);
    expect(caller.text).toMatch(/^HTTP\/1\.1 429 .*\r\n(?:.*\r\n)*mesh-error: rate-limit\r\n/);
    expect([caller.ended, mesh.dialled.length]).toEqual([true, 0]);
    expect(mesh.records).toMatchObject([{ status: 429, reason: 'rate-limit', detail: 'rate limit: few' }]);
  });

  it('is none where the service speaks HTTP: its requests are counted, and no connection', () => {
    mesh.protocol = 'http';
    mesh.overRate = 'few';
    const caller = mesh.call(`${CONNECT}GET /a HTTP/1.1\r\nHost: web\r\n\r\n`, true);
    mesh.last.answers('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    expect(caller.text).toMatch(/^HTTP\/1\.1 200 Connection Established\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
  });
});
