import { describe, expect, it } from 'vitest';
import { MessageWriter } from '../../../src/http/message-writer.ts';
import { MemoryChannel } from '../proxy/memory-channel.ts';

function setup() {
  const channel = new MemoryChannel();
  return { channel, writer: new MessageWriter() };
}

const texts = ({ written }: MemoryChannel) => written.map((bytes) => bytes.toString('latin1'));
const large = new Uint8Array(20_000).fill(0x78);

describe('MessageWriter', () => {
  it('writes a head, its content and its end at once', () => {
    const { channel, writer } = setup();
    writer.begin(channel, 'HEAD\r\n\r\n', true);
    writer.content(Buffer.from('abc'));
    writer.content(Buffer.from('de'));
    expect(channel.written).toHaveLength(0);
    writer.end('x: y\r\n');
    expect(texts(channel)).toEqual(['HEAD\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n']);
    expect(writer.written).toBe(channel.text.length);
  });

  it('writes what there is when it is flushed', () => {
    const { channel, writer } = setup();
    writer.begin(channel, 'HEAD\r\n\r\n', false);
    writer.content(Buffer.from('abc'));
    writer.flush();
    writer.flush();
    writer.content(Buffer.from('de'));
    writer.end();
    expect(texts(channel)).toEqual(['HEAD\r\n\r\nabc', 'de']);
  });

  it.each([
    [false, 'HEAD', 'end'],
    [true, 'HEAD4e20\r\n', '\r\n3\r\nend\r\n0\r\n\r\n'],
  ])('gives a large piece away as it is, chunked: %s', (chunked, before, after) => {
    const { channel, writer } = setup();
    writer.begin(channel, 'HEAD', chunked);
    writer.content(large);
    writer.content(Buffer.from('end'));
    writer.end();
    expect(texts(channel)).toEqual([before, Buffer.from(large).toString(), after]);
  });

  it('keeps the parts of two messages apart', () => {
    const one = setup();
    const two = setup();
    one.writer.begin(one.channel, 'A', false);
    two.writer.begin(two.channel, 'B', false);
    one.writer.content(Buffer.from('a'));
    two.writer.content(Buffer.from('b'));
    one.writer.end();
    two.writer.end();
    expect([one.channel.text, two.channel.text]).toEqual(['Aa', 'Bb']);
  });

  it('forgets what one channel has not been given when it begins on another', () => {
    const { channel, writer } = setup();
    const other = new MemoryChannel();
    writer.begin(channel, 'HEAD', true);
    writer.content(large);
    writer.begin(other, 'AGAIN', false);
    writer.end();
    expect([channel.text, other.text]).toEqual(['HEAD4e20\r\n', 'AGAIN']);
  });

  it('says when the channel is full, and gathers more small pieces than there is room for', () => {
    const { channel, writer } = setup();
    channel.full = true;
    writer.begin(channel, '', true);
    for (let i = 0; i < 50_000; i++) writer.content(Uint8Array.of(0x61));
    writer.end();
    expect(writer.blocked).toBe(true);
    expect(channel.text).toBe(`${'1\r\na\r\n'.repeat(50_000)}0\r\n\r\n`);
    expect(channel.written.length).toBeLessThan(5);
  });
});
