import { describe, expect, it } from 'vitest';
import { Relay, type RelayEnd } from '../../../src/proxy/relay.ts';
import { MemoryChannel, turn } from './memory-channel.ts';

function joined() {
  const client = new MemoryChannel();
  const upstream = new MemoryChannel();
  const ends: RelayEnd[] = [];
  const relay = new Relay(client, upstream, (end) => ends.push(end));
  return { client, upstream, ends, relay };
}

describe('Relay', () => {
  it('carries bytes both ways and counts them', () => {
    const { client, upstream, relay } = joined();
    client.handler.data(Buffer.from('question'));
    upstream.handler.data(Buffer.from('answer!'));
    expect(upstream.text).toBe('question');
    expect(client.text).toBe('answer!');
    expect([relay.bytesSent, relay.bytesReceived]).toEqual([8, 7]);
  });

  it('pauses a source whose sink is full and resumes it on drain', () => {
    const { client, upstream } = joined();
    client.resume();
    upstream.full = true;
    client.handler.data(Buffer.from('x'));
    expect(client.paused).toBe(true);
    upstream.handler.drain();
    expect(client.paused).toBe(false);
  });

  it('ends each direction by itself and is done when both channels are', () => {
    const { client, upstream, ends, relay } = joined();
    client.handler.end();
    expect(upstream.ended).toBe(true);
    expect(client.ended).toBe(false);
    expect(relay.halfClosed).toBe(true);
    upstream.handler.data(Buffer.from('late'));
    expect(client.text).toBe('late');
    upstream.handler.end();
    expect(relay.halfClosed).toBe(false);
    upstream.close({ reason: 'done', delivered: true });
    expect(ends).toEqual([]);
    client.close({ reason: 'done', delivered: true });
    expect(ends).toEqual([{ reason: 'done', detail: undefined }]);
  });

  it('passes a reset on as a reset, never as an end', async () => {
    const { client, upstream, ends } = joined();
    client.close({ reason: 'reset', delivered: true });
    expect(upstream.resetWith).toBe('reset');
    expect(upstream.ended).toBe(false);
    await turn();
    expect(ends).toEqual([{ reason: 'client-reset', detail: undefined }]);
  });

  it('names the upstream’s failure', async () => {
    const { client, upstream, ends } = joined();
    upstream.close({ reason: 'tunnel-lost', delivered: true, detail: 'gone' });
    expect(client.resetWith).toBe('tunnel-lost');
    await turn();
    expect(ends).toEqual([{ reason: 'tunnel-lost', detail: 'gone' }]);
  });

  it('aborts both sides with the reason given', async () => {
    const { client, upstream, ends, relay } = joined();
    relay.abort({ reason: 'draining', detail: 'deadline' });
    await turn();
    expect([client.resetWith, upstream.resetWith]).toEqual(['draining', 'draining']);
    expect(ends).toEqual([{ reason: 'draining', detail: 'deadline' }]);
  });
});
