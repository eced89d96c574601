import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import { Readiness } from '../../../src/daemon/supervisor/readiness.ts';
import { reloadScope } from '../../../src/daemon/supervisor/reload-scope.ts';
import { findUser } from '../../../src/daemon/user.ts';
import { OwnListenerSet } from '../../../src/daemon/worker/own-listeners.ts';
import type { Ip } from '../../../src/model/address.ts';

const config = (text: string) => loadConfig({ text });

describe('reloadScope', () => {
  it('names nothing when nothing changed', () => {
    expect(reloadScope(config(''), config('node: {zone: default}'))).toMatchObject({
      changed: [],
      needRestart: [],
    });
  });

  it('tells what acts at once from what waits for a restart', () => {
    const after = config('balance: {attempts: 5}\ntunnel: {port: 16000}\nzones: []\ncapture: {mode: all}');
    const { changed, needRestart, next } = reloadScope(config(''), after);
    expect([next.balance.attempts, next.capture.mode, next.tunnel.port]).toEqual([5, 'all', 15008]);
    expect(changed.toSorted()).toEqual(['balance', 'capture.mode', 'tunnel.port']);
    expect(needRestart).toEqual(['tunnel.port']);
  });

  it('knows that mode off has no capture listener', () => {
    expect(reloadScope(config(''), config('capture: {mode: off}')).needRestart).toEqual(['capture.mode']);
  });

  it('logs fewer requests at once', () => {
    const after = config('telemetry: {accessLogRequests: failed}');
    const { next, needRestart } = reloadScope(config(''), after);
    expect([next.telemetry.accessLogRequests, needRestart]).toEqual(['failed', []]);
  });

  it('takes other registries at once', () => {
    const after = config('registries: [{type: file, directory: /elsewhere}]');
    expect(reloadScope(config(''), after)).toMatchObject({ changed: ['registries'], needRestart: [] });
  });
});

describe('OwnListenerSet', () => {
  it('knows loopback, and the addresses of the host, which it reads seldom', () => {
    let now = 0;
    const own = new OwnListenerSet([15001], () => now);
    expect(own.isOwnAddress('127.0.0.9' as Ip)).toBe(true);
    expect(own.isOwnAddress('::1' as Ip)).toBe(true);
    expect(own.isOwnAddress('203.0.113.7' as Ip)).toBe(false);
    now += 60_000;
    expect(own.isOwnAddress('203.0.113.7' as Ip)).toBe(false);
    expect([...own.ports]).toEqual([15001]);
  });
});

describe('Readiness', () => {
  it('is ready when nothing blocks, and tells each change once', () => {
    const told: boolean[] = [];
    const readiness = new Readiness(['workers', 'interception'], (ready) => told.push(ready));
    readiness.set('workers', undefined);
    readiness.set('interception', 'no iptables');
    expect(readiness.list).toEqual([{ name: 'interception', reason: 'no iptables' }]);
    readiness.set('interception', undefined);
    readiness.set('interception', undefined);
    readiness.set('draining', 'asked to');
    expect(told).toEqual([true, false]);
    expect(readiness.ready).toBe(false);
  });
});

describe('findUser', () => {
  const passwd = 'root:x:0:0::/root:/bin/sh\nmesh-node:x:998:997::/:/bin/false\nbroken\n';

  it('finds by name and by number, in the file alone', () => {
    expect(findUser('mesh-node', passwd)).toEqual({ uid: 998, gid: 997 });
    expect(findUser('998', passwd)).toEqual({ uid: 998, gid: 997 });
  });

  it('names the setting when there is no such user', () => {
    expect(() => findUser('nobody-here', passwd)).toThrow(/daemon\.user: no user nobody-here/);
  });
});
