import { describe, expect, it } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { Instance, InstanceId, Service, ServiceMode, ServiceName } from '../../../src/model/service.ts';
import type { OpenedPath } from '../../../src/proxy/outbound-dependencies.ts';
import { type Asking, Prober } from '../../../src/proxy/prober.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

const instance: Instance = {
  id: 'one' as InstanceId,
  address: parseEndpoint('10.0.0.1:80')!,
  zone: 'z',
  labels: {},
  weight: 100,
  draining: false,
};

function service(mode: ServiceMode): Service {
  return {
    name: 'web' as ServiceName,
    protocol: 'tcp',
    mode,
    interchangeable: false,
    balance: 'round-robin',
    hosts: [],
    addresses: [],
    instances: [instance],
  };
}

function setup(mode: ServiceMode, path: OpenedPath['path'], asking?: Asking) {
  const channel = new MemoryChannel();
  const past = new MemoryChannel();
  const log: string[] = [];
  const timers = new Map<() => void, number>();
  const clock = { now: 0 };
  const prober = new Prober({
    open: (_service, _instance, origin) => {
      log.push(`opened for ${origin.address}`);
      return { channel, path, viaAgent: path === 'tunnel' || path === 'relay' };
    },
    past: () => {
      log.push('past');
      return past;
    },
    started: () => ({
      connected: () => log.push('connected'),
      failed: () => log.push('failed'),
      answered: () => {},
      finished: () => log.push('finished'),
    }),
    after: (milliseconds, expired) => {
      timers.set(expired, milliseconds);
      return () => timers.delete(expired);
    },
    settings: () => ({ agentPatience: 1000, connectTimeout: 5000 }),
    now: () => clock.now,
  });
  const expire = () => {
    const due = [...timers];
    timers.clear();
    for (const [expired] of due) expired();
    return due.map(([, milliseconds]) => milliseconds);
  };
  prober.probe(service(mode), instance, (outcome) => log.push(outcome), asking);
  return { channel, past, log, timers, expire, clock };
}

const agentGone: ChannelClose = { reason: 'unreachable', delivered: false, source: 'peer' };

describe('Prober', () => {
  it('opens, says nothing, ends', () => {
    const { channel, log, timers } = setup('strict', 'tunnel');
    channel.handler.open!();
    expect(log).toEqual(['opened for undefined', 'connected', 'finished', 'reached']);
    expect([channel.written, channel.ended, channel.paused]).toEqual([[], true, false]);
    channel.handler.data(Buffer.from('220 hello'));
    channel.handler.end();
    channel.close({ reason: 'done', delivered: false });
    expect(timers.size).toBe(0);
  });

  it('resets what does not end', async () => {
    const { channel, expire } = setup('strict', 'local');
    channel.handler.open!();
    expect(expire()).toEqual([1000]);
    await turn();
    expect(channel.resetWith).toBe('none');
  });

  it.each([
    ['refused', 'callee', 'unreached'],
    ['denied', 'peer', 'unknown'],
    ['overload', undefined, 'unknown'],
  ] as const)('%s by %s: %s', (reason, source, outcome) => {
    const { channel, log, timers } = setup('strict', 'tunnel');
    channel.close({ reason, delivered: false, ...(source === undefined ? {} : { source }) });
    expect(log.slice(1)).toEqual(['finished', outcome]);
    expect(timers.size).toBe(0);
  });

  it('holds nobody for dead whose agent does not let this one in, and takes it for no success', () => {
    const { channel, log } = setup('strict', 'tunnel');
    channel.close({ reason: 'denied', delivered: false, source: 'callee' });
    expect(log.slice(1)).toEqual(['finished', 'reached']);
  });

  it('goes past an agent that is away, for permissive services only', () => {
    const permissive = setup('permissive', 'tunnel');
    permissive.channel.close(agentGone);
    expect(permissive.log.slice(1)).toEqual(['past']);
    permissive.past.handler.open!();
    expect(permissive.log.slice(2)).toEqual(['connected', 'finished', 'reached']);

    const denied = setup('permissive', 'tunnel');
    denied.channel.close({ reason: 'denied', delivered: false, source: 'peer' });
    expect(denied.log.slice(1)).toEqual(['finished', 'unknown']);

    const strict = setup('strict', 'tunnel');
    strict.channel.close(agentGone);
    expect(strict.log.slice(1)).toEqual(['finished', 'unreached']);
    const relayed = setup('permissive', 'relay');
    relayed.channel.close(agentGone);
    expect(relayed.log.slice(1)).toEqual(['finished', 'unreached']);
  });

  it('bounds an agent that does not answer', async () => {
    const permissive = setup('permissive', 'tunnel');
    expect(permissive.expire()).toEqual([1000]);
    await turn();
    expect(permissive.log.slice(1)).toEqual(['past']);
    permissive.past.close({ reason: 'timeout', delivered: false });
    expect(permissive.log.slice(2)).toEqual(['finished', 'unreached']);

    const strict = setup('strict', 'tunnel');
    expect(strict.expire()).toEqual([11_000]);
    await turn();
    expect(strict.log.slice(1)).toEqual(['finished', 'unreached']);
  });
});

describe('a question', () => {
  /** The test's word is the answer. */
  function question(): Asking {
    return {
      timeout: 800,
      question: (channel, told, lost) => {
        channel.handler = {
          data: (bytes) => told(Buffer.from(bytes).toString() === 'good'),
          end: () => {},
          drain: () => {},
          close: lost,
        };
        channel.write(Buffer.from('well?'));
      },
    };
  }

  it.each([
    ['good', 'reached'],
    ['bad', 'unreached'],
  ])('%s: %s', (answer, outcome) => {
    const { channel, log, timers } = setup('strict', 'tunnel', question());
    channel.handler.open!();
    expect(channel.text).toBe('well?');
    expect(log).toHaveLength(1);
    channel.handler.data(Buffer.from(answer));
    expect(log.at(-1)).toBe(outcome);
    expect(channel.ended).toBe(true);
    channel.close({ reason: 'done', delivered: true });
    expect(timers.size).toBe(0);
  });

  it('has a bound over everything; who does not answer is not well, and is not asked past its agent', async () => {
    const { channel, log, expire, timers, clock } = setup('permissive', 'tunnel', question());
    expect([...timers.values()]).toEqual([400]);
    clock.now = 100;
    channel.handler.open!();
    expect(expire()).toEqual([700]);
    await turn();
    expect(channel.resetWith).toBe('timeout');
    expect(log.slice(1)).toEqual(['finished', 'unreached']);
  });

  it('is asked past an agent that is away, in the time that is left', () => {
    const { channel, past, log, timers, clock } = setup('permissive', 'tunnel', question());
    clock.now = 300;
    channel.close(agentGone);
    expect(log.slice(1)).toEqual(['past']);
    expect([...timers.values()]).toEqual([500]);
    past.handler.open!();
    past.handler.data(Buffer.from('good'));
    expect(log.at(-1)).toBe('reached');
  });

  it('bounds ways that have no agent, too', async () => {
    const { channel, log, expire } = setup('strict', 'local', question());
    expect(expire()).toEqual([800]);
    await turn();
    expect(channel.resetWith).toBe('timeout');
    expect(log.at(-1)).toBe('unreached');
  });

  it('a connection that is lost before the answer, or ends without one, is not well', () => {
    for (const reason of ['reset', 'done'] as const) {
      const { channel, log } = setup('strict', 'direct', question());
      channel.handler.open!();
      channel.close({ reason, delivered: true });
      expect(log.at(-1)).toBe('unreached');
    }
  });

  it('does not listen for ever to who says too much', async () => {
    const { channel } = setup('strict', 'local', question());
    channel.handler.open!();
    channel.handler.data(Buffer.from('good'));
    channel.handler.data(Buffer.alloc(40_000));
    await turn();
    expect(channel.resetWith).toBeUndefined();
    channel.handler.data(Buffer.alloc(40_000));
    await turn();
    expect(channel.resetWith).toBe('none');
  });
});
