import { describe, expect, it } from 'vitest';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import { RedisOutbound, type SlowCommand } from '../../../src/resp/redis-outbound.ts';
import { MemoryChannel } from '../proxy/memory-channel.ts';

const instance: Instance = {
  ...{ id: 'one' as InstanceId, address: parseEndpoint('10.0.0.1:6379')!, node: 'n' as NodeName, zone: 'z' },
  ...{ labels: {}, weight: 100, draining: false },
};
const service: Service = {
  ...{ name: 'cache' as ServiceName, protocol: 'redis', mode: 'permissive', interchangeable: false },
  ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [instance] },
};

function setup() {
  const records: ConnectionRecord[] = [];
  const counted: string[] = [];
  const slow: SlowCommand[] = [];
  const clock = { now: 0 };
  const upstream = new MemoryChannel();
  const client = new MemoryChannel();
  const token = { connected() {}, failed() {}, answered() {}, finished: () => counted.push('finished') };
  const redis = new RedisOutbound(
    {
      pick: (_service, exclude) => (exclude.size === 0 ? instance : undefined),
      started: () => token,
      open: () => ({ channel: upstream, path: 'tunnel', viaAgent: true }),
      past: () => upstream,
      reached: () => {},
      unreached: () => {},
      after: () => () => {},
      settings: () => ({ attempts: 3, replayBuffer: 1000, agentPatience: 1000, connectTimeout: 5000 }),
      policy: () => noPolicy,
      breaker: () => undefined,
      counts: () => ({
        answered: (command, failed) => counted.push(`${command} ${failed ? 'error' : 'ok'}`),
        unanswered: (command, count) => counted.push(`${command} none ${count}`),
        took: (ms) => counted.push(`took ${ms}`),
        slow: (command) => counted.push(`slow ${command}`),
        error: (word) => counted.push(word),
        lost: (reason) => counted.push(`lost ${reason}`),
      }),
      slow: () => 100,
      onSlow: (command) => slow.push(command),
    },
    () => clock.now,
  );
  const live = new Connections('0', { started: () => {}, ended: (record) => records.push(record) });
  const entry = live.begin({
    ...{ direction: 'outbound', callerNode: undefined, callerService: undefined },
    ...{ callerAddress: '10.0.0.2:1', destination: '10.0.0.1:6379' },
  });
  const accept = (begun?: Parameters<RedisOutbound['accept']>[4]) =>
    redis.accept(
      client,
      entry,
      { address: undefined, program: undefined },
      { service, instance: undefined },
      begun,
    );
  return { records, counted, slow, clock, upstream, client, accept };
}

describe('RedisOutbound', () => {
  it('carries bytes as they are, and counts what they say', () => {
    const { records, counted, upstream, client, accept } = setup();
    accept();
    client.handler.data(Buffer.from('PING\r\n'));
    upstream.handler.open!();
    upstream.handler.data(Buffer.from('+PONG\r\n'));
    client.handler.data(Buffer.from('GET a\r\n'));
    expect([upstream.text, client.text]).toEqual(['PING\r\nGET a\r\n', '+PONG\r\n']);
    expect(counted).toEqual(['ping ok', 'took 0']);
    client.handler.end();
    expect(upstream.ended).toBe(true);
    upstream.close({ reason: 'reset', delivered: true });
    client.close({ reason: 'local', delivered: true });
    expect(counted.slice(2)).toEqual(['get none 1', 'finished']);
    expect(records).toMatchObject([{ bytesSent: 13, bytesReceived: 7, reason: 'reset', path: 'tunnel' }]);
  });

  it('carries what it cannot follow all the same', () => {
    const { counted, upstream, client, accept } = setup();
    accept();
    upstream.handler.open!();
    client.handler.data(Buffer.from('\x16\x03\x01'));
    client.handler.data(Buffer.from('more'));
    upstream.handler.data(Buffer.from('nonsense'));
    expect([upstream.text, client.text]).toEqual(['\x16\x03\x01more', 'nonsense']);
    expect(counted).toEqual(['lost commands']);
  });

  it('slows the caller down as any relay does', () => {
    const { upstream, client, accept } = setup();
    accept();
    upstream.handler.open!();
    upstream.full = true;
    client.handler.data(Buffer.from('PING\r\n'));
    expect(client.paused).toBe(true);
    upstream.handler.drain();
    expect(client.paused).toBe(false);
  });

  it('counts and logs what is slow, but not what waits on purpose, and few of many', () => {
    const { counted, slow, clock, upstream, client, accept } = setup();
    accept();
    upstream.handler.open!();
    const ask = (text: string, ms: number) => {
      client.handler.data(Buffer.from(`${text}\r\n`));
      clock.now += ms;
      upstream.handler.data(Buffer.from('+OK\r\n'));
    };
    ask('BLPOP secret 10', 5000);
    ask('KEYS secret*', 100);
    ask('KEYS secret*', 101);
    expect(counted).toEqual(['blpop ok', 'keys ok', 'took 100', 'keys ok', 'took 101', 'slow keys']);
    expect(slow).toEqual([
      { service: 'cache', command: 'keys', durationMs: 101, connection: '0-1', untold: 0 },
    ]);
    for (let i = 0; i < 30; i++) ask('GET secret', 200);
    const told = slow.length;
    expect(told).toBeGreaterThan(10);
    expect(told).toBeLessThan(20);
    clock.now += 60_000;
    ask('GET secret', 200);
    expect(slow.at(-1)!.untold).toBeGreaterThan(0);
    expect(slow.reduce((sum, { untold }) => sum + untold + 1, 0)).toBe(32);
    expect(JSON.stringify(slow)).not.toContain('secret');
  });

  it('goes on with what was read before', () => {
    const { counted, upstream, client, accept } = setup();
    accept({ bytes: [Buffer.from('PI'), Buffer.from('NG\r\n')], ended: true });
    upstream.handler.open!();
    upstream.handler.data(Buffer.from('+PONG\r\n'));
    expect([upstream.text, upstream.ended, client.text]).toEqual(['PING\r\n', true, '+PONG\r\n']);
    expect(counted).toEqual(['ping ok', 'took 0']);
  });
});
