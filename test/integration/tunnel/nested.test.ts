import { createHash } from 'node:crypto';
import { connect as tcpConnect } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { ChannelDuplex } from '../../../src/io/duplex.ts';
import type { TunnelTarget } from '../../../src/tunnel/dial.ts';
import type { OpenRequest } from '../../../src/tunnel/open-request.ts';
import type { TunnelStream } from '../../../src/tunnel/stream.ts';
import {
  echo,
  makePair,
  node,
  type Offer,
  openEcho,
  type Pair,
  service,
  settings,
  TestAuthority,
  until,
} from './support.ts';

/*
 * Sessions inside relay streams: one relay, and a relay inside a relay. The pool dials the last acceptor through the
 * relay streams of the pairs before it; every byte passes each of them.
 */

let authority: TestAuthority;
const cleanup: (() => void)[] = [];
beforeAll(() => {
  authority = new TestAuthority('mesh');
});
afterEach(() => {
  for (const action of cleanup.splice(0)) action();
});
afterAll(() => authority.remove());

const relayTo: OpenRequest = {
  kind: 'relay',
  service: service('echo'),
  zone: 'z',
  node: node('server'),
  hops: 2,
  via: [],
};

/** Joins a relay stream with a TCP connection, as a zone-agent does. */
function carry({ stream }: Offer, port: number): void {
  const inside = new ChannelDuplex(stream);
  const onward = tcpConnect(port, '127.0.0.1');
  inside.on('error', () => onward.destroy());
  inside.on('close', () => onward.destroy());
  onward.on('error', () => inside.destroy());
  onward.on('close', () => inside.destroy());
  inside.pipe(onward).pipe(inside);
  stream.accept();
}

interface Nest {
  /** From the outermost to the one that is talked to. */
  readonly pairs: readonly Pair[];
  /** Opens a stream in the innermost session. */
  open(): TunnelStream;
  readonly inner: Pair;
}

/** `depth` relays around one session. */
async function nest(depth: number): Promise<Nest> {
  const pairs: Pair[] = [];
  for (let at = 0; at <= depth; at++) {
    const pair = await makePair(authority);
    pair.credentials.peersMay = { relay: true };
    cleanup.push(() => pair.close());
    pairs.push(pair);
  }
  for (let at = 0; at < depth; at++) {
    const next = pairs[at + 1]!;
    pairs[at]!.onOffer = (offer) => carry(offer, next.port);
  }
  let target = pairs[0]!.target;
  for (let at = 0; at < depth; at++) {
    const through = target;
    const { pool } = pairs[at]!;
    const via = (): Duplex => new ChannelDuplex(pool.open(through, relayTo));
    const inner: TunnelTarget = { node: node('server'), key: `inside ${at}`, via };
    target = inner;
  }
  const inner = pairs[depth]!;
  return { pairs, inner, open: () => inner.pool.open(target, openEcho) };
}

/** A stream that sends `bytes` of a pattern as fast as it may, and hashes what comes back. */
class Bulk {
  readonly stream: TunnelStream;
  readonly #total: number;
  #sent = 0;
  received = 0;
  ended = false;
  close: ChannelClose | undefined;
  readonly #out = createHash('sha256');
  readonly #in = createHash('sha256');

  constructor(stream: TunnelStream, total: number) {
    this.stream = stream;
    this.#total = total;
    stream.handler = {
      data: (bytes) => {
        this.received += bytes.length;
        this.#in.update(bytes);
      },
      end: () => {
        this.ended = true;
      },
      drain: () => this.send(),
      close: (why) => {
        this.close = why;
      },
    };
    stream.resume();
    this.send();
  }

  get sent(): number {
    return this.#sent;
  }

  send(): void {
    while (this.#sent < this.#total) {
      const chunk = Buffer.alloc(Math.min(50_001, this.#total - this.#sent));
      for (let at = 0; at < chunk.length; at += 7) chunk[at] = (this.#sent + at) * 31;
      this.#sent += chunk.length;
      this.#out.update(chunk);
      const more = this.stream.write(chunk);
      chunk.fill(0);
      if (!more) return;
    }
    this.stream.end();
  }

  digests(): [string, string] {
    return [this.#out.digest('hex'), this.#in.digest('hex')];
  }
}

for (const depth of [1, 2]) {
  describe(`a session inside ${depth} relay stream(s)`, () => {
    test('bulk both ways on several streams, each byte where it belongs, and half-close', async () => {
      const { inner, open } = await nest(depth);
      inner.onOffer = echo;
      const total = 6_000_000;
      const bulks = [0, 1, 2].map(() => new Bulk(open(), total));
      await until('all ends', () => bulks.every(({ ended, close }) => ended && close !== undefined));
      for (const bulk of bulks) {
        expect(bulk.received).toBe(total);
        const [out, back] = bulk.digests();
        expect(back).toBe(out);
        expect(bulk.close).toEqual({ reason: 'done', delivered: true });
      }
    });

    test('a reset of one stream leaves the others alone', async () => {
      const { inner, open } = await nest(depth);
      inner.onOffer = (offer) => {
        if (inner.offers.length === 1) {
          offer.stream.accept();
          offer.stream.handler = {
            data: () => offer.stream.reset('reset', 'enough'),
            end() {},
            drain() {},
            close() {},
          };
          offer.stream.resume();
        } else echo(offer);
      };
      const broken = new Bulk(open(), 100_000);
      const whole = new Bulk(open(), 1_000_000);
      await until('both are over', () => broken.close !== undefined && whole.close !== undefined);
      expect(broken.close).toEqual({
        reason: 'reset',
        delivered: true,
        source: 'callee',
        detail: 'enough',
      });
      const [out, back] = whole.digests();
      expect(back).toBe(out);
    });

    test('a slow reader holds its sender back through every session, and nobody else', async () => {
      const { inner, open } = await nest(depth);
      inner.onOffer = (offer) => {
        if (inner.offers.length === 1) offer.stream.accept();
        else echo(offer);
      };
      const total = 50_000_000;
      const slow = new Bulk(open(), total);
      const fast = new Bulk(open(), 3_000_000);
      await until('the fast one is done', () => fast.close !== undefined);
      const [out, back] = fast.digests();
      expect(back).toBe(out);
      const { stream } = inner.offers[0]!;
      expect(stream.bytesReceived).toBeLessThanOrEqual(settings().initialWindow);
      expect(slow.sent).toBeLessThan(settings().initialWindow + 200_000);
      // Once it is read, it goes on.
      stream.handler = { data() {}, end() {}, drain() {}, close() {} };
      stream.resume();
      await until('more is sent', () => slow.sent > 5_000_000);
      stream.pause();
      slow.stream.reset();
    });

    test('the outermost session dies: streams are lost, and the next one finds another way', async () => {
      const { pairs, inner, open } = await nest(depth);
      inner.onOffer = echo;
      const used = new Bulk(open(), 10);
      await until('the echo', () => used.received === 10);
      expect(inner.pool.stats()).toMatchObject([{ address: 'via relay', state: 'open' }]);
      const lost = new Bulk(open(), 50_000_000);
      await until('under way', () => lost.received > 0);
      for (const session of [...pairs[0]!.acceptor.sessions]) session.close('draining', 'dies');
      await until('lost', () => lost.close !== undefined);
      expect(lost.close).toMatchObject({ reason: 'tunnel-lost', delivered: true, source: 'peer' });
      const backedOff = () =>
        pairs.some(({ pool }) => pool.stats().some(({ state }) => state === 'back-off'));
      await until('no pool backs off', () => !backedOff());
      const next = new Bulk(open(), 10);
      await until('a new way', () => next.received === 10);
    });
  });
}
