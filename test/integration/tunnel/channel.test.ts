import { afterAll, beforeAll } from 'vitest';
import { channelConformance } from '../../conformance/channel.ts';
import { makePair, openEcho, type Pair, TestAuthority, until } from './support.ts';

let authority: TestAuthority;
let pair: Pair;

beforeAll(async () => {
  authority = new TestAuthority('mesh');
  pair = await makePair(authority);
});
afterAll(() => {
  pair.close();
  authority.remove();
});

channelConformance('a tunnel stream over TLS', async () => {
  const before = pair.offers.length;
  const a = pair.pool.open(pair.target, openEcho);
  await until('the offer', () => pair.offers.length > before);
  const b = pair.offers.at(-1)!.stream;
  b.accept();
  await until('accepted', () => a.state === 'open');
  return {
    a,
    b,
    done: async () => {
      await until('forgotten', () => pair.offers.at(-1)!.session.streamCount === 0);
    },
  };
});
