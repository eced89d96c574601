import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { AccessRequest } from '../../../src/access/rules.ts';
import type { Access } from '../../../src/model/policy.ts';
import { ChannelMesh } from './channel-mesh.ts';

const access: Access = { rules: [], otherwise: 'allow', shadow: false };
const get = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nhost: web\r\n${more}\r\n`;
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n';

beforeEach(() => {
  ChannelMesh.install();
  return () => vi.useRealTimers();
});

describe('requests to instances of this host', () => {
  it('are named to access rules as they are sent on, on new channels and on those from the pool', async () => {
    const mesh = new ChannelMesh();
    const asked: (AccessRequest | undefined)[] = [];
    mesh.admits = (_service, _instance, { request }) => {
      asked.push(request);
      return request?.path !== '/no';
    };
    mesh.policy = { access, routes: [{ name: 'r', matches: [], percent: 100, rewrite: { path: '/sent' } }] };
    const caller = mesh.call(get('/as-it-came'));
    mesh.last.answers(OK);
    mesh.policy = { access };
    caller.says(get('/b?q'));
    mesh.last.answers(OK);
    expect(mesh.dialled).toHaveLength(1);
    caller.says(get('/no'));
    await mesh.pass(0);
    expect(asked).toEqual([
      { method: 'GET', path: '/sent' },
      { method: 'GET', path: '/b?q' },
      // Not on the channel that is there, and not on one of its own.
      { method: 'GET', path: '/no' },
      { method: 'GET', path: '/no' },
    ]);
    expect(mesh.dialled.map(({ text }) => text.includes('/no HTTP')).slice(0, 1)).toEqual([false]);
    expect(caller.text).toMatch(
      /HTTP\/1\.1 403 Forbidden\r\n(?:.*\r\n)*mesh-error: denied\r\n(?:.*\r\n)*\r\nmesh-node: rule x\n$/,
    );
    caller.says(get('/again'));
    expect(caller.ended, 'the connection stays').toBe(false);
    expect(mesh.records.map(({ status, reason }) => [status, reason])).toEqual([
      [200, 'done'],
      [200, 'done'],
      [403, 'denied'],
    ]);
    expect(mesh.outcomes.some(({ failed }) => failed)).toBe(false);
  });

  it('that are denied keep no channel for longer than its server may be expected to', async () => {
    const mesh = new ChannelMesh();
    mesh.policy = { access };
    mesh.admits = (_service, _instance, { request }) => request?.path !== '/no';
    const caller = mesh.call(get('/yes'));
    const kept = mesh.last.answers(OK);
    for (let second = 0; second < 4; second++) {
      await mesh.pass(1000);
      caller.says(get('/no'));
    }
    await mesh.pass(500);
    expect(kept.ended).toBe(true);
  });

  it('are not named where there are no rules', () => {
    const mesh = new ChannelMesh();
    mesh.admits = (_service, _instance, { request }) => request === undefined;
    mesh.call(get('/'));
    mesh.last.answers(OK);
    expect(mesh.records[0]?.status).toBe(200);
  });

  it('that switch to another protocol leave what was asked with their connection', () => {
    const mesh = new ChannelMesh();
    const upgrade = 'upgrade: websocket\r\nconnection: upgrade\r\n';
    const caller = mesh.call(get('/ws?a', upgrade));
    expect(caller.entry.judged).toBe('requests');
    mesh.last.answers(`HTTP/1.1 101 Switching Protocols\r\n${upgrade}\r\n`);
    expect(caller.entry.judged).toEqual({ method: 'GET', path: '/ws?a' });
    expect(caller.entry).toMatchObject({ instance: '1', path: 'local' });
  });
});
