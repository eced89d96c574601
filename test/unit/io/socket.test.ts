import { afterAll } from 'vitest';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import type { Ip } from '../../../src/model/address.ts';
import { channelConformance } from '../../conformance/channel.ts';

const poller = new Poller();
afterAll(() => poller.close());

for (const ip of ['127.0.0.1', '::1'] as Ip[]) {
  channelConformance(`TcpChannel over ${ip}`, async () => {
    const fd = createListeningSocket({ ip, port: 0, backlog: 16 });
    const port = localEndpointOf(fd)!.port;
    let listener: TcpListener | undefined;
    const accepted = new Promise<TcpChannel>((resolve) => {
      listener = new TcpListener(poller, fd, { acceptBatch: 16, onConnection: resolve });
    });
    const a = TcpChannel.connect(poller, { ip, port }, { timeoutMs: 1000 });
    const b = await accepted;
    return { a, b, done: async () => listener?.close() };
  });
}
