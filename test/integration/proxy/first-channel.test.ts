import { afterAll, describe, expect, it } from 'vitest';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import type { Ip } from '../../../src/model/address.ts';
import { FailedChannel } from '../../../src/proxy/failed-channel.ts';
import { FirstChannel } from '../../../src/proxy/first-channel.ts';
import { channelConformance } from '../../conformance/channel.ts';

const ip = '127.0.0.1' as Ip;
const poller = new Poller();
const fd = createListeningSocket({ ip, port: 0, backlog: 128 });
const endpoint = localEndpointOf(fd)!;
let accepted: (channel: TcpChannel) => void = () => {};
const listener = new TcpListener(poller, fd, {
  acceptBatch: 16,
  onConnection: (channel) => accepted(channel),
});
afterAll(() => {
  listener.close();
  poller.close();
});

const none: ChannelClose = { reason: 'unreachable', delivered: false, detail: 'no candidate' };
const refused: ChannelClose = { reason: 'refused', delivered: false };
const connect = () => TcpChannel.connect(poller, endpoint, { timeoutMs: 5000 });

function start() {
  const b = new Promise<TcpChannel>((resolve) => {
    accepted = resolve;
  });
  const candidates = (function* () {
    yield { channel: new FailedChannel(refused) };
    yield { channel: connect() };
  })();
  return { a: new FirstChannel(candidates, none), b, done: async () => {} };
}

// A reset by the owner closes an open TCP channel with `local`, as it must here: the wrapper adds nothing of its own.
channelConformance(
  'the first of two channels, after one that failed',
  async () => {
    const { a, b, done } = start();
    return { a, b: await b, done };
  },
  start,
);

describe('FirstChannel', () => {
  it('closes as the last of its candidates did', async () => {
    const channel = new FirstChannel([{ channel: new FailedChannel(refused) }].values(), none);
    const why = await new Promise<ChannelClose>((resolve) => {
      channel.handler = { data() {}, end() {}, drain() {}, close: resolve };
    });
    expect(why).toEqual(refused);
  });

  it('closes when there is no candidate', async () => {
    const channel = new FirstChannel([].values(), none);
    const why = await new Promise<ChannelClose>((resolve) => {
      channel.handler = { data() {}, end() {}, drain() {}, close: resolve };
    });
    expect(why).toEqual(none);
  });
});
