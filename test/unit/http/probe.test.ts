import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { httpQuestion } from '../../../src/http/probe.ts';
import type { ServiceName } from '../../../src/model/service.ts';
import { MemoryChannel } from '../proxy/memory-channel.ts';

const policy = {
  path: '/healthz?deep=1',
  statuses: [
    { from: 200, to: 299 },
    { from: 404, to: 404 },
  ],
};

function ask(change: { host?: string } = {}) {
  const channel = new MemoryChannel();
  const said: string[] = [];
  httpQuestion({ ...policy, ...change }, 'web.shop' as ServiceName)(
    channel,
    (good) => said.push(good ? 'good' : 'bad'),
    ({ reason }) => said.push(reason),
  );
  const answer = (text: string) => channel.handler.data(Buffer.from(text, 'latin1'));
  return { channel, said, answer };
}

describe('HTTP probe', () => {
  it('asks by GET, says who it is, and keeps nothing open', () => {
    const { channel } = ask();
    expect(channel.text.split('\r\n')).toEqual([
      'GET /healthz?deep=1 HTTP/1.1',
      'host: web.shop',
      'user-agent: mesh-node-probe',
      'accept: */*',
      'connection: close',
      '',
      '',
    ]);
    expect(channel.paused).toBe(false);
    expect(ask({ host: 'other' }).channel.text).toContain('\r\nhost: other\r\n');
  });

  it.each([
    [200, 'good'],
    [299, 'good'],
    [404, 'good'],
    [300, 'bad'],
    [503, 'bad'],
  ])('%d: %s', (status, outcome) => {
    const { said, answer } = ask();
    answer(`HTTP/1.1 ${status} Whatever\r\ncontent-length: 5\r\n\r\n`);
    expect(said).toEqual([outcome]);
  });

  it('waits for the answer behind interim ones, and for all of its head', () => {
    const { said, answer } = ask();
    answer('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2');
    expect(said).toEqual([]);
    answer('04 No Content\r\n\r\n');
    expect(said).toEqual(['good']);
  });

  it('takes what is no HTTP, or ends too early, for a bad answer, and a loss for a loss', () => {
    const noise = ask();
    noise.answer('SSH-2.0-OpenSSH_9.2\r\n');
    expect(noise.said).toEqual(['bad']);
    const early = ask();
    early.answer('HTTP/1.1 200');
    early.channel.handler.end();
    expect(early.said).toEqual(['bad']);
    const lost = ask();
    lost.channel.close({ reason: 'reset', delivered: true });
    expect(lost.said).toEqual(['reset']);
  });

  it('tells once, whatever comes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 10 }),
        fc.boolean(),
        (pieces, clean) => {
          const { channel, said } = ask();
          const head = clean ? [Buffer.from('HTTP/1.1 200 OK\r\n\r\n')] : [];
          for (const piece of [...head, ...pieces]) channel.handler.data(piece);
          channel.handler.end();
          channel.close({ reason: 'done', delivered: true });
          expect(said).toHaveLength(1);
        },
      ),
    );
  });
});
