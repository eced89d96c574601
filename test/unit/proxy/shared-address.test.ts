import { describe, expect, it } from 'vitest';
import { type ClientAddress, type OriginalDestination, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { Instance, InstanceId, Service, ServiceName } from '../../../src/model/service.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import type { Detected } from '../../../src/proxy/opening-dependencies.ts';
import { Outbound } from '../../../src/proxy/outbound.ts';
import type { Begun } from '../../../src/proxy/protocols.ts';
import { serviceNamed } from '../../../src/route/by-name.ts';
import { realHello } from '../detection/hellos.ts';
import { MemoryChannel } from './memory-channel.ts';

const endpoint = (text: string) => parseEndpoint(text)!;

function service(name: string, mode: Service['mode'] = 'permissive'): Service {
  const instance: Instance = {
    ...{ id: name as InstanceId, address: endpoint('10.0.0.1:443'), zone: 'z', labels: {} },
    ...{ weight: 100, draining: false },
  };
  return {
    ...{ name: name as ServiceName, protocol: 'auto', mode, interchangeable: false, balance: 'round-robin' },
    ...{ hosts: [`${name}.example`], addresses: [], instances: [instance] },
  };
}

function setup(
  services: readonly Service[],
  options: { readonly exempt?: boolean; readonly port?: number } = {},
) {
  const opened: { service: string; channel: MemoryChannel }[] = [];
  const direct: MemoryChannel[] = [];
  const detected: Detected[] = [];
  const records: ConnectionRecord[] = [];
  const timers = new Set<() => void>();
  const http: Begun[] = [];
  const strict = services.some(({ mode }) => mode === 'strict');
  const outbound = new Outbound(
    {
      route: () => ({ kind: 'shared', services, strict }),
      pick: (of, exclude) => of.instances.find((candidate) => !exclude.has(candidate)),
      started: () => ({ connected() {}, failed() {}, answered() {}, finished() {} }),
      open: ({ name }) => {
        const channel = new MemoryChannel();
        opened.push({ service: name, channel });
        return { channel, path: 'tunnel', viaAgent: true };
      },
      direct: () => {
        const channel = new MemoryChannel();
        direct.push(channel);
        return channel;
      },
      past: () => new MemoryChannel(),
      reached: () => {},
      unreached: () => {},
      after: (_milliseconds, expired) => {
        timers.add(expired);
        return () => timers.delete(expired);
      },
      settings: () => ({ attempts: 3, replayBuffer: 100, agentPatience: 1000, connectTimeout: 5000 }),
      policy: () => noPolicy,
      breaker: () => undefined,
      protocols: {},
      httpAt: (_client, _entry, _origin, _destination, begun) => http.push(begun),
      named: (among, name) => serviceNamed(among, name, 'mesh'),
      detection: () => ({ enabled: true, timeout: 250, serverFirstPorts: [3306] }),
      detected: (what) => detected.push(what),
      explicit: () => {},
      callerNode: undefined as never,
      callerService: () => undefined,
      admit: () => undefined,
      exempt: () => options.exempt ?? false,
      needsNames: () => false,
    },
    new Connections('0', { started: () => {}, ended: (record) => records.push(record) }),
  );
  const client = new MemoryChannel();
  const destination = { ip: endpoint('10.0.0.9:1').ip, port: options.port ?? 443 } as OriginalDestination;
  outbound.accept(client, endpoint('10.0.0.2:4000') as ClientAddress, destination, endpoint('127.0.0.1:1'));
  const expire = () => {
    for (const expired of [...timers]) if (timers.delete(expired)) expired();
  };
  return { client, opened, direct, detected, records, timers, http, expire };
}

const both = [service('one'), service('two')];

describe('SharedAddress', () => {
  it.each(['two', 'two.mesh', 'TWO.example'])(
    'leads TLS to the service that it names, untouched: %s',
    async (name) => {
      const { client, opened, direct, detected, timers } = setup(both);
      const hello = await realHello({ servername: name });
      client.handler.data(hello.subarray(0, 100));
      expect(opened).toEqual([]);
      client.handler.data(hello.subarray(100));
      expect(opened.map((each) => each.service)).toEqual(['two']);
      expect(Buffer.concat(opened[0]!.channel.written)).toEqual(hello);
      expect([direct, detected]).toEqual([[], ['tls']]);
      opened[0]!.channel.handler.open!();
      expect(timers.size).toBe(0);
      opened[0]!.channel.handler.data(Buffer.from('server hello'));
      expect(client.text).toBe('server hello');
    },
  );

  it('leads other names, and what has none, on to the address itself', async () => {
    for (const bytes of [
      await realHello({ servername: 'three.example' }),
      await realHello({}),
      Buffer.from('*1\r\n$4\r\nPING\r\n'),
    ]) {
      const { client, opened, direct } = setup(both);
      client.handler.data(bytes);
      expect(opened).toEqual([]);
      direct[0]!.handler.open!();
      expect(Buffer.concat(direct[0]!.written)).toEqual(bytes);
      direct[0]!.handler.data(Buffer.from('answer'));
      expect(client.text).toBe('answer');
    }
  });

  it('asks the address itself where the caller says nothing: its server may speak first', () => {
    const { client, direct, detected, expire, records } = setup(both);
    expect(direct).toEqual([]);
    expire();
    direct[0]!.handler.open!();
    direct[0]!.handler.data(Buffer.from('220 ready'));
    expect([client.text, detected]).toEqual(['220 ready', ['timeout']]);
    client.handler.end();
    direct[0]!.handler.end();
    direct[0]!.close({ reason: 'done', delivered: true });
    client.close({ reason: 'done', delivered: true });
    expect(records).toMatchObject([
      { path: 'passthrough', service: undefined, reason: 'done', detected: 'timeout' },
    ]);
  });

  it('refuses what names nobody where one of the services is strict', async () => {
    const { client, opened, direct, records } = setup([service('one', 'strict'), service('two')]);
    client.handler.data(await realHello({ servername: 'three.example' }));
    expect([client.resetWith, opened, direct]).toEqual(['configuration', [], []]);
    expect(records).toMatchObject([{ reason: 'configuration' }]);
    for (const name of ['one', 'two']) {
      const named = setup([service('one', 'strict'), service('two')]);
      named.client.handler.data(await realHello({ servername: name }));
      expect(named.opened.map((each) => each.service)).toEqual([name]);
    }
  });

  it('gives HTTP on, whose requests say by themselves where they go', () => {
    const { client, http, opened, direct } = setup(both);
    client.handler.data(Buffer.from('GET / HTTP/1.1\r\nho'));
    expect(http.map(({ bytes }) => Buffer.concat([...bytes]).toString())).toEqual(['GET / HTTP/1.1\r\nho']);
    expect([opened, direct]).toEqual([[], []]);
  });

  it('goes on at once for exempt callers, and on ports where servers speak first', () => {
    expect(setup(both, { exempt: true })).toMatchObject({ detected: [], direct: [{}] });
    const skipped = setup(both, { port: 3306 });
    expect([skipped.detected, skipped.direct.length, skipped.timers.size]).toEqual([['skipped-port'], 1, 0]);
  });

  it('writes down who went away before anything was known', () => {
    const { client, records, detected, timers, direct } = setup(both);
    client.handler.data(Buffer.from('GET'));
    client.close({ reason: 'reset', delivered: true });
    expect(records).toMatchObject([{ reason: 'client-reset', path: 'none' }]);
    expect([detected, timers.size, direct]).toEqual([['ended'], 0, []]);
  });
});
