import { describe, expect, it } from 'vitest';
import { zookeeperRegistry } from '../../../src/config/sections/zookeeper.ts';

const servers = ['zk1.example:2181', '10.0.0.1:2181', '[fd00::1]:2181'];
const given = (more: object) => ({ type: 'zookeeper', servers, ...more });

describe('a zookeeper registry', () => {
  it('needs its servers only', () => {
    expect(zookeeperRegistry.parse(given({}))).toEqual({
      type: 'zookeeper',
      servers,
      path: '/discovery',
      names: 'last',
      services: [],
      sessionTimeout: 10_000,
      resyncInterval: 60_000,
      timeout: 5000,
    });
  });

  it.each([
    ['no server', { servers: [] }],
    ['a server without port', { servers: ['zk1'] }],
    ['a path that is relative', { path: 'discovery' }],
    ['a path that ends in a slash', { path: '/discovery/' }],
    ['a path with a step back', { path: '/discovery/../x' }],
    ['a path with a control character', { path: '/disc\u0000overy' }],
    ['a service without path', { services: [{ name: 'web' }] }],
    ['a certificate without key', { tls: { ca: '/ca', cert: '/cert' } }],
    ['credentials in the configuration', { auth: { scheme: 'digest', secret: 'x:y' } }],
    ['a session of no time', { sessionTimeout: '0ms' }],
  ])('refuses %s', (_what, more) => {
    expect(zookeeperRegistry.safeParse(given(more)).success).toBe(false);
  });

  it.each(['/', '/discovery', '/a/b c/ü', '/..a/b..'])('takes the path %s', (path) => {
    expect(zookeeperRegistry.safeParse(given({ path })).success).toBe(true);
  });
});
