import { once } from 'node:events';
import { PassThrough, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { ChannelDuplex } from '../../../src/io/duplex.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';
import { patternBytes, Recorder } from '../../conformance/channel.ts';

const poller = new Poller();
afterAll(() => poller.close());

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('ChannelDuplex', () => {
  const streams: ChannelDuplex[] = [];
  const recorders: Recorder[] = [];
  const make = () => {
    const [x, y] = createSocketPair();
    const stream = new ChannelDuplex(TcpChannel.adopt(poller, x));
    stream.on('error', () => {});
    const far = new Recorder(TcpChannel.adopt(poller, y));
    streams.push(stream);
    recorders.push(far);
    return { stream, far };
  };
  afterEach(async () => {
    for (const stream of streams.splice(0)) stream.destroy();
    for (const recorder of recorders.splice(0)) {
      recorder.reset();
      await until('closed', () => recorder.closed);
      expect(recorder.violations).toEqual([]);
    }
  });

  test('carries bytes both ways and closes when both halves ended', async () => {
    const there = patternBytes(3_000_000, 1);
    const { stream, far } = make();
    far.channel.resume();
    far.onEnd = () => {
      far.channel.write(far.bytes());
      far.channel.end();
    };
    const closed = once(stream, 'close');
    const back: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => back.push(chunk));
    await pipeline(Readable.from([there.subarray(0, 1000), there.subarray(1000)]), stream, { end: true });
    await closed;
    await until('far closed', () => far.closed);
    expect(Buffer.compare(Buffer.concat(back), there)).toBe(0);
    expect(far.reason).toBe('done');
  });

  test('a reader that does not read stops the channel', async () => {
    const { stream, far } = make();
    far.channel.resume();
    let written = 0;
    while (far.channel.write(new Uint8Array(65_536))) written += 65_536;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(far.drains).toBe(0);
    expect(stream.readableLength).toBeLessThan(2 << 20);
    stream.resume();
    await until('drain', () => far.drains > 0);
    expect(written).toBeGreaterThan(0);
  });

  test('a writer waits for the drain of the channel', async () => {
    const { stream, far } = make();
    let finished = false;
    stream.write(new Uint8Array(4 << 20), () => {
      finished = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(finished).toBe(false);
    far.channel.resume();
    await until('written', () => finished);
  });

  test('half-close: reads on after its own end', async () => {
    const { stream, far } = make();
    far.channel.resume();
    stream.end('bye');
    await until('end', () => far.ended);
    far.write(Buffer.from('answer'));
    const [chunk] = (await once(stream, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('answer');
    expect(stream.destroyed).toBe(false);
  });

  test('destroy is a reset', async () => {
    const [x, y] = createSocketPair();
    const channel = TcpChannel.adopt(poller, x);
    const stream = new ChannelDuplex(channel);
    const other = TcpChannel.adopt(poller, y);
    let resets = 0;
    const original = channel.reset.bind(channel);
    channel.reset = () => {
      resets++;
      original();
    };
    stream.destroy();
    await once(stream, 'close');
    expect(resets).toBe(1);
    other.reset();
  });

  test('a reset from the far end is an error', async () => {
    const { stream, far } = make();
    const failed = once(stream, 'error');
    // A unix socket that is closed with unread bytes resets its peer.
    stream.write('unread');
    stream.resume();
    await new Promise((resolve) => setTimeout(resolve, 10));
    far.reset();
    const [error] = await failed;
    expect(error).toMatchObject({ name: 'MeshError', code: 'reset' });
    expect(stream.destroyed).toBe(true);
  });

  test('destroyed after a clean end, the last bytes still go out', async () => {
    const { stream, far } = make();
    const bytes = patternBytes(2_000_000, 2);
    const sink = new PassThrough();
    sink.end();
    stream.end(bytes);
    await new Promise((resolve) => setTimeout(resolve, 5));
    far.channel.resume();
    await once(stream, 'finish');
    stream.destroy();
    await until('end', () => far.ended);
    expect(Buffer.compare(far.bytes(), bytes)).toBe(0);
    far.end_();
    await until('closed', () => far.closed);
    expect(far.reason).toBe('done');
  });
});
