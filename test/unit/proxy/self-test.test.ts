import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SelfTestResponder, selfTestAnswer } from '../../../src/proxy/self-test.ts';
import { MemoryChannel } from './memory-channel.ts';

/** A responder, and what its bounds on time would do now. */
function responder() {
  const expire = new Set<() => void>();
  const made = new SelfTestResponder((_ms, expired) => {
    expire.add(expired);
    return () => expire.delete(expired);
  });
  const ask = (): MemoryChannel => {
    const channel = new MemoryChannel();
    made.accept(channel);
    return channel;
  };
  return { ask, expire };
}

describe('SelfTestResponder', () => {
  it('gives the words back, however they are cut, and ends', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z0-9]{0,62}$/), fc.array(fc.nat(63)), (words, cuts) => {
        const { ask, expire } = responder();
        const channel = ask();
        expect(channel.paused).toBe(false);
        const bytes = Buffer.from(`${words}\nand more`);
        let from = 0;
        for (const to of [...new Set(cuts)].sort((a, b) => a - b)) {
          channel.handler.data(bytes.subarray(from, to));
          from = Math.max(from, to);
        }
        channel.handler.data(bytes.subarray(from));
        expect(channel.text).toBe(selfTestAnswer(words));
        expect(channel.ended).toBe(true);
        channel.close({ reason: 'done', delivered: true });
        expect(expire.size, 'the bound on its time is taken back').toBe(0);
      }),
    );
  });

  it('resets what asks too much, or nothing', () => {
    const { ask, expire } = responder();
    const long = ask();
    long.handler.data(Buffer.alloc(40, 'x'));
    long.handler.data(Buffer.alloc(40, 'x'));
    const ended = ask();
    ended.handler.data(Buffer.from('half a quest'));
    ended.handler.end();
    const silent = ask();
    for (const one of [...expire]) one();
    for (const channel of [long, ended, silent])
      expect([channel.resetWith, channel.text]).toEqual(['none', '']);
  });

  it('answers a bounded number at once, and others when those are over', () => {
    const { ask } = responder();
    const open = Array.from({ length: 100 }, ask);
    const taken = open.filter(({ resetWith }) => resetWith === undefined);
    expect(taken).toHaveLength(32);
    taken[0]!.close({ reason: 'reset', delivered: false });
    const next = ask();
    next.handler.data(Buffer.from('x\n'));
    expect(next.text).toBe(selfTestAnswer('x'));
  });
});
