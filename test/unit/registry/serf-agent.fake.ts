import { createServer, type Server, type Socket } from 'node:net';
import { MsgpackDecoder, type MsgValue, textOf } from '../../../src/registry/msgpack.ts';

/** A value as MessagePack in the older format that Serf's agents speak. */
export function pack(value: unknown): Buffer {
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === 'number') return Buffer.from([0xcd, value >> 8, value & 0xff]);
  if (typeof value === 'string') return pack(Buffer.from(value));
  if (value instanceof Uint8Array)
    return Buffer.concat([Buffer.from([0xda, value.length >> 8, value.length & 0xff]), value]);
  if (Array.isArray(value)) {
    return Buffer.concat([Buffer.from([0xdc, value.length >> 8, value.length & 0xff]), ...value.map(pack)]);
  }
  const entries = Object.entries(value as object);
  return Buffer.concat([
    Buffer.from([0xde, 0, entries.length]),
    ...entries.flatMap(([k, v]) => [pack(k), pack(v)]),
  ]);
}

interface FakeMember {
  readonly name: string;
  readonly ip: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly status?: string;
}

const memberOf = ({ name, ip, tags, status = 'alive' }: FakeMember) => ({
  Name: name,
  Addr: Buffer.from(ip.split('.').map(Number)),
  Port: 7946,
  Tags: tags,
  Status: status,
});

/** The RPC port of a Serf agent, as far as a reader needs it. */
export class FakeSerfAgent {
  members: readonly FakeMember[] = [];
  /** Events are withheld, as a stalled stream does. */
  stalled = false;
  /** Nothing is answered any more. */
  silent = false;
  port = 0;
  readonly commands: string[] = [];
  readonly #key: string | undefined;
  #server: Server | undefined;
  readonly #sockets = new Map<Socket, number | undefined>();

  constructor(key?: string) {
    this.#key = key;
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve));
    this.port = (server.address() as { port: number }).port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets.keys()) socket.destroy();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  /** Sets the members and tells every stream. */
  become(members: readonly FakeMember[]): void {
    const before = this.members;
    this.members = members;
    for (const old of before) if (!members.some((m) => m.name === old.name)) this.tell('member-leave', [old]);
    if (members.length > 0) this.tell('member-update', members);
  }

  tell(event: string, members: readonly FakeMember[]): void {
    if (this.stalled) return;
    for (const [socket, stream] of this.#sockets) {
      if (stream === undefined) continue;
      const body = { Event: event, Members: members.map(memberOf) };
      socket.write(Buffer.concat([pack({ Error: '', Seq: stream }), pack(body)]));
    }
  }

  /** Sends bytes as they are to everyone. */
  blurt(bytes: Uint8Array): void {
    for (const socket of this.#sockets.keys()) socket.write(bytes);
  }

  #serve(socket: Socket): void {
    this.#sockets.set(socket, undefined);
    const decoder = new MsgpackDecoder();
    const queue: Map<string, MsgValue>[] = [];
    let authenticated = this.#key === undefined;
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      queue.push(...(decoder.push(bytes) as Map<string, MsgValue>[]));
      while (queue.length > 0 && !this.silent) {
        const command = textOf(queue[0]!.get('Command') as Uint8Array);
        const seq = queue[0]!.get('Seq') as number;
        if (command !== 'members' && queue.length < 2) return;
        queue.shift();
        this.commands.push(command);
        const body = command === 'members' ? undefined : queue.shift();
        let error = '';
        if (command === 'auth') {
          authenticated = textOf(body!.get('AuthKey') as Uint8Array) === this.#key;
          if (!authenticated) error = 'Invalid authentication token';
        } else if (command !== 'handshake' && !authenticated) error = 'Authentication required';
        const answer = [pack({ Error: error, Seq: seq })];
        if (command === 'members' && error === '') answer.push(pack({ Members: this.members.map(memberOf) }));
        if (command === 'stream' && error === '') this.#sockets.set(socket, seq);
        socket.write(Buffer.concat(answer));
      }
    });
  }
}
