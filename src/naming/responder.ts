import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import { bindAlone } from '../io/datagram.ts';
import { type Ip, isIpv6 } from '../model/address.ts';
import { answer, type NameSpace, type Transport } from './answer.ts';
import { MAX_WAITING_BYTES, StreamQuestions } from './stream-questions.ts';

/** Connections of one process; further ones are closed at once. What one may hold: stream-questions.ts. */
const MAX_CONNECTIONS = 64;
/** Answers over UDP that wait for the kernel; further ones are dropped, and the asker asks again. */
const MAX_UDP_WAITING_BYTES = 256 * 1024;
const BACKLOG = 128;

/** A bound socket that is shared with other processes: whoever wakes first reads. Those of other kinds are left alone. */
interface NameSocket {
  readonly kind: string;
  readonly ip: Ip;
  readonly fd: number;
}

interface NameResponderOptions {
  /** What is true now. */
  names(): NameSpace;
  /** An answer was given, with this response code. */
  answered(transport: Transport, code: number): void;
  /** A socket of ours failed; the others go on. */
  failed(error: Error): void;
}

/** Answers questions for names of services, over UDP and TCP. */
export class NameResponder {
  readonly #options: NameResponderOptions;
  readonly #datagrams: UdpSocket[] = [];
  readonly #servers: Server[] = [];
  readonly #connections = new Set<Socket>();

  constructor(options: NameResponderOptions) {
    this.#options = options;
  }

  get serving(): boolean {
    return this.#datagrams.length + this.#servers.length > 0;
  }

  /** Takes the descriptors over; `close` closes them (in this process). */
  serve(sockets: readonly NameSocket[]): void {
    if (this.serving) return;
    for (const { kind, ip, fd } of sockets) {
      try {
        if (kind === 'dns-udp') this.#serveDatagrams(ip, fd);
        else if (kind === 'dns-tcp') this.#serveStream(fd);
      } catch (error) {
        this.#options.failed(error instanceof Error ? error : new Error(String(error)));
      }
    }
  }

  /** Takes no question any more. */
  close(): void {
    for (const socket of this.#datagrams.splice(0)) socket.close();
    for (const server of this.#servers.splice(0)) server.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serveDatagrams(ip: Ip, fd: number): void {
    const socket = createSocket(isIpv6(ip) ? 'udp6' : 'udp4');
    socket.on('error', (error) => this.#options.failed(error));
    socket.on('message', (message, from) => this.#datagram(socket, message, from));
    socket.bind({ fd, exclusive: true });
    bindAlone(fd);
    this.#datagrams.push(socket);
  }

  #datagram(socket: UdpSocket, message: Buffer, from: RemoteInfo): void {
    // Nobody can be answered at port 0, and the call would throw.
    if (from.port === 0 || socket.getSendQueueSize() > MAX_UDP_WAITING_BYTES) return;
    const reply = this.#answer(message, 'udp');
    // It may have gone away meanwhile; it asks again if it still wants to know.
    if (reply !== undefined) socket.send(reply, from.port, from.address, () => {});
  }

  #serveStream(fd: number): void {
    const server = createServer({ noDelay: true, highWaterMark: MAX_WAITING_BYTES }, (socket) =>
      this.#connected(socket),
    );
    server.maxConnections = MAX_CONNECTIONS;
    this.#servers.push(server);
    server.on('error', (error) => this.#options.failed(error));
    server.listen({ fd, backlog: BACKLOG });
  }

  #connected(socket: Socket): void {
    this.#connections.add(socket);
    socket.on('close', () => this.#connections.delete(socket));
    new StreamQuestions(socket, (question) => this.#answer(question, 'tcp'));
  }

  #answer(message: Uint8Array, transport: Transport): Buffer | undefined {
    const reply = answer(message, transport, this.#options.names());
    if (reply !== undefined) this.#options.answered(transport, reply[3]! & 0xf);
    return reply;
  }
}
