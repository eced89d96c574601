import { describe, expect, it } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { DetectionBench } from './detection-bench.ts';
import { turn } from './memory-channel.ts';

const REQUEST = 'GET / HTTP/1.1\r\nhost: a\r\n\r\n';
const refused: ChannelClose = { reason: 'refused', delivered: false, source: 'callee' };
const done: ChannelClose = { reason: 'done', delivered: true };

describe('Detector', () => {
  it('gives HTTP on with what was said and the way that was opened, on which nothing was written', () => {
    const bench = new DetectionBench().start();
    expect(bench.upstreams).toHaveLength(1);
    expect(bench.client.paused).toBe(false);
    bench.opens();
    bench.says(REQUEST.slice(0, 5));
    bench.says(REQUEST.slice(5));
    expect(bench.begun).toBe(REQUEST);
    expect(bench.http!.begun).toMatchObject({ ended: false, opened: { instance: { id: '1' } } });
    expect(bench.upstream.written).toEqual([]);
    expect(bench.client.paused).toBe(true);
    expect(bench.detected).toEqual(['http']);
    expect(bench.timers.size).toBe(0);
    expect(bench.outcomes).toEqual(['1 connected']);
    expect(bench.records).toEqual([]);
  });

  it('waits for the way that is being opened, but not for long', async () => {
    const soon = new DetectionBench().start();
    soon.says(REQUEST);
    expect([soon.http, soon.client.paused]).toEqual([undefined, true]);
    soon.opens();
    expect(soon.http!.begun!.opened!.instance.id).toBe('1');
    expect(soon.timers.size).toBe(0);

    const late = new DetectionBench().start();
    late.says(REQUEST);
    late.expire();
    expect(late.http!.begun!.opened).toBeUndefined();
    expect(late.upstream.resetWith).toBeDefined();
    await turn();
    expect(late.outcomes).toEqual(['1 finished']);
    expect(late.begun).toBe(REQUEST);
  });

  it('lets HTTP answer where nobody can be reached, and resets what is no HTTP', () => {
    for (const [text, http] of [
      [REQUEST, true],
      ['\0', false],
    ] as const) {
      const bench = new DetectionBench().start();
      for (const upstream of [0, 1]) bench.upstreams[upstream]!.close(refused);
      expect(bench.client.resetWith).toBeUndefined();
      bench.says(text);
      expect(bench.http !== undefined).toBe(http);
      expect(bench.client.resetWith).toBe(http ? undefined : 'refused');
      expect(bench.timers.size).toBe(0);
    }
    const silent = new DetectionBench().start();
    for (const upstream of [0, 1]) silent.upstreams[upstream]!.close(refused);
    silent.expire();
    expect(silent.client.resetWith).toBe('refused');
    expect(silent.detected).toEqual(['timeout']);
    expect(silent.records).toMatchObject([{ reason: 'refused', attempts: 2 }]);
  });

  it('carries a server that speaks first, and does not wait for it', () => {
    const bench = new DetectionBench().start();
    bench.opens();
    expect([bench.upstream.paused, bench.timers.size]).toEqual([false, 0]);
    bench.answers('220 ready\r\n');
    expect(bench.client.text).toBe('220 ready\r\n');
    expect(bench.detected).toEqual(['server-first']);
    bench.says(REQUEST);
    expect(bench.upstream.text).toBe(REQUEST);
    expect(bench.http).toBeUndefined();
  });

  it('lets a silent connection be for as long as it likes', () => {
    const bench = new DetectionBench().start();
    bench.opens();
    expect(bench.timers.size).toBe(0);
    bench.says(REQUEST);
    expect(bench.detected).toEqual(['http']);
  });

  it('holds what may be HTTP or not for a while, and carries it then', () => {
    const bench = new DetectionBench().start();
    bench.opens();
    bench.says('GET');
    expect([bench.upstream.text, bench.timers.size]).toEqual(['', 1]);
    bench.expire();
    expect(bench.upstream.text).toBe('GET');
    bench.says(' / HTTP/1.1\r\n\r\n');
    expect(bench.upstream.text).toBe('GET / HTTP/1.1\r\n\r\n');
    expect([bench.detected, bench.http]).toEqual([['timeout'], undefined]);
  });

  it.each([
    ['\x16\x03\x01\x02\0\x01', 'tls'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'http2'],
    ['*1\r\n$4\r\nPING\r\n', 'other'],
  ] as const)('carries %j as it is, before and after the way is open: %s', (text, what) => {
    for (const openFirst of [true, false]) {
      for (const viaAgent of [true, false]) {
        const bench = new DetectionBench();
        bench.viaAgent = viaAgent;
        bench.start();
        if (openFirst) bench.opens();
        bench.says(text);
        expect(bench.detected).toEqual([what]);
        expect(bench.upstream.text, 'it travels with the opening').toBe(text);
        if (!openFirst) {
          expect(bench.client.paused).toBe(!viaAgent);
          bench.opens();
        }
        expect(bench.client.paused).toBe(false);
        bench.says('more');
        bench.answers('yes');
        expect([bench.upstream.text, bench.client.text]).toEqual([`${text}more`, 'yes']);
      }
    }
  });

  it('tries another instance with what was held', () => {
    const bench = new DetectionBench().start();
    bench.says('\0held');
    bench.upstream.close(refused);
    expect(bench.upstreams).toHaveLength(2);
    expect(bench.upstream.text).toBe('\0held');
    bench.opens();
    bench.client.handler.end();
    expect(bench.upstream.ended).toBe(true);
    expect(bench.outcomes).toEqual(['1 failed', '1 finished', '2 connected']);
  });

  it('carries a caller that ends before anything is known', () => {
    const bench = new DetectionBench().start();
    bench.says('GET /');
    bench.client.handler.end();
    expect(bench.detected).toEqual(['ended']);
    expect([bench.upstream.text, bench.upstream.ended]).toEqual(['GET /', true]);
    bench.opens();
    bench.answers('late');
    bench.upstream.handler.end();
    bench.upstream.close(done);
    bench.client.close(done);
    expect(bench.client.text).toBe('late');
    expect(bench.records).toMatchObject([
      { bytesSent: 5, bytesReceived: 4, reason: 'done', detected: 'ended' },
    ]);
    expect(bench.outcomes.at(-1)).toBe('1 finished');
  });

  it('passes on what a silent server does: its end, and its reset', async () => {
    const ends = new DetectionBench().start();
    ends.opens();
    ends.upstream.handler.end();
    expect([ends.client.ended, ends.detected]).toEqual([true, ['ended']]);
    const resets = new DetectionBench().start();
    resets.opens();
    resets.upstream.close({ reason: 'reset', delivered: true });
    expect(resets.client.resetWith).toBe('reset');
    await turn();
    expect(resets.records).toMatchObject([{ reason: 'reset' }]);
    expect(resets.outcomes.at(-1)).toBe('1 finished');
  });

  it('stops the caller where an upstream has no room for what was held', () => {
    const bench = new DetectionBench().start();
    bench.opens();
    bench.upstream.full = true;
    bench.says('\0');
    expect(bench.client.paused).toBe(true);
    bench.upstream.handler.drain();
    expect(bench.client.paused).toBe(false);
  });

  it.each(['before', 'after', 'waiting'])(
    'gives up when the caller goes away: %s the way is open',
    async (when) => {
      const bench = new DetectionBench().start();
      if (when === 'after') bench.opens();
      if (when === 'waiting') bench.says(REQUEST);
      bench.client.close({ reason: 'reset', delivered: true });
      await turn();
      expect(bench.upstream.resetWith).toBeDefined();
      expect(bench.records).toMatchObject([{ reason: 'client-reset' }]);
      expect(bench.outcomes.at(-1)).toBe('1 finished');
      expect(bench.detected).toEqual([when === 'waiting' ? 'http' : 'ended']);
      expect([bench.timers.size, bench.http]).toEqual([0, undefined]);
    },
  );

  it('looks at nothing on ports where servers speak first, nor where it is switched off', () => {
    const skipped = new DetectionBench().start(3306);
    expect([skipped.detected, skipped.client.paused]).toEqual([['skipped-port'], true]);
    const off = new DetectionBench();
    off.settings = { ...off.settings, enabled: false };
    off.start();
    expect([off.detected, off.client.paused]).toEqual([[], true]);
    for (const bench of [skipped, off]) {
      bench.opens();
      bench.says(REQUEST);
      expect([bench.upstream.text, bench.http]).toEqual([REQUEST, undefined]);
    }
  });

  it('goes on with what was read before', () => {
    const bytes = [Buffer.from('GET / HT'), Buffer.from('TP/1.1\r\n'), Buffer.from('rest')];
    const bench = new DetectionBench().start(80, { bytes, ended: true });
    bench.opens();
    expect(bench.begun).toBe('GET / HTTP/1.1\r\nrest');
    expect(bench.http!.begun!.ended).toBe(true);
    const ended = new DetectionBench().start(80, { bytes: [Buffer.from('GE')], ended: true });
    expect([ended.detected, ended.upstream.text, ended.upstream.ended]).toEqual([['ended'], 'GE', true]);
  });

  describe('where the last connection spoke HTTP', () => {
    it('opens no way of its own for the next', () => {
      const bench = new DetectionBench().expectHttp();
      for (let next = 0; next < 3; next++) {
        bench.start();
        bench.says(REQUEST);
        expect(bench.begun).toBe(REQUEST);
        expect(bench.http!.begun!.opened).toBeUndefined();
      }
      expect(bench.upstreams).toEqual([]);
      expect(bench.timers.size).toBe(0);
      expect(bench.detected).toEqual(['http', 'http', 'http']);
    });

    it('opens it after a while for a caller that says nothing: the server may speak first', () => {
      const bench = new DetectionBench().expectHttp().start();
      expect(bench.upstreams).toEqual([]);
      bench.expire();
      bench.opens();
      bench.answers('220 ready');
      expect([bench.client.text, bench.detected]).toEqual(['220 ready', ['server-first']]);
      // It does not speak HTTP any more.
      bench.start();
      expect(bench.upstreams).toHaveLength(2);
    });

    it('still takes HTTP that comes late, with the way that was opened by then', () => {
      const bench = new DetectionBench().expectHttp().start();
      bench.expire();
      bench.opens();
      bench.says(REQUEST);
      expect(bench.http!.begun!.opened!.instance.id).toBe('1');
    });

    it('carries what is something else', () => {
      const bench = new DetectionBench().expectHttp().start();
      bench.says('\0other');
      expect(bench.upstream.text).toBe('\0other');
      bench.opens();
      bench.says(' more');
      expect([bench.upstream.text, bench.timers.size]).toEqual(['\0other more', 0]);
    });

    it('forgets nothing of a caller that only comes and goes', () => {
      const bench = new DetectionBench().expectHttp().start();
      bench.client.close({ reason: 'done', delivered: true });
      expect([bench.detected, bench.timers.size, bench.records.length]).toEqual([['ended'], 0, 1]);
      bench.start();
      expect(bench.upstreams).toEqual([]);
    });
  });
});
