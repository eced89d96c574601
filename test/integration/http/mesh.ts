import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import type { ExplicitDependencies } from '../../../src/http/explicit-targets.ts';
import { HttpOutbound } from '../../../src/http/http-outbound.ts';
import { createListeningSocket, TcpListener } from '../../../src/io/listener.ts';
import { Poller } from '../../../src/io/poller.ts';
import { TcpChannel } from '../../../src/io/socket.ts';
import { localEndpointOf } from '../../../src/io/socket-options.ts';
import { ServiceLimits } from '../../../src/limit/service-limits.ts';
import {
  type ClientAddress,
  type Endpoint,
  type Ip,
  type OriginalDestination,
  parseIp,
} from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy, type ServicePolicy } from '../../../src/model/policy.ts';
import type { RequestRecord } from '../../../src/model/request.ts';
import type {
  Instance,
  InstanceId,
  NodeName,
  Protocol,
  Service,
  ServiceName,
} from '../../../src/model/service.ts';
import { emptySnapshot } from '../../../src/model/snapshot.ts';
import { Connections } from '../../../src/proxy/connections.ts';
import { Detector } from '../../../src/proxy/detector.ts';
import type { Detected } from '../../../src/proxy/opening-dependencies.ts';
import { Outbound } from '../../../src/proxy/outbound.ts';
import type { OutboundRoute } from '../../../src/proxy/outbound-dependencies.ts';
import type { ProtocolHandler } from '../../../src/proxy/protocols.ts';

const ip = '127.0.0.1' as Ip;

function instanceAt(port: number): Instance {
  return {
    id: `i${port}` as InstanceId,
    address: { ip, port },
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  };
}

/**
 * The way out of a node with one service `web` that speaks HTTP, on real sockets: what connects to `port` is taken as
 * captured. Instances are picked in turn.
 */
export class HttpMesh {
  readonly poller = new Poller();
  readonly records: RequestRecord[] = [];
  readonly connections: ConnectionRecord[] = [];
  /** Of `protocol: auto`. */
  readonly detected: Detected[] = [];
  readonly live: Connections;
  readonly http: HttpOutbound;
  readonly port: number;
  /** Connections made to instances. */
  dialled = 0;
  begun = 0;
  active = 0;
  instances: Instance[] = [];
  /** What operators say of the service. */
  policy: ServicePolicy = noPolicy;
  /** Bounds and budgets by policy. */
  readonly limits = new ServiceLimits({
    policy: () => this.policy,
    workers: () => 1,
    now: () => performance.now(),
    onTransition: () => {},
    onRefused: () => {},
  });
  only: Instance | undefined;
  protocol: Protocol = 'http';
  /** Where callers believe that they are. */
  address: Endpoint = { ip: '10.0.0.9' as Ip, port: 80 };
  /** Services that share the address that callers call. */
  shared: OutboundRoute | undefined;
  /** Callers use the explicit proxy. */
  explicit = false;
  find: ExplicitDependencies['find'] = (host, port, usual) => {
    if (host === 'web') return { kind: 'service', service: this.service };
    const ip = parseIp(host);
    if (ip === undefined) return { kind: 'unknown', host };
    return { kind: 'address', endpoint: { ip, port: port ?? usual } };
  };
  resolve: ExplicitDependencies['resolve'] = async () => [ip];
  forbidden: ExplicitDependencies['forbidden'] = () => undefined;
  readonly #listener: TcpListener;
  readonly #cleanUp: (() => void)[] = [];
  #turn = 0;

  constructor() {
    const { poller } = this;
    const search = {
      pick: (service: Service, exclude: ReadonlySet<Instance>) => {
        const left = service.instances.filter((instance) => !exclude.has(instance));
        return left[this.#turn++ % left.length];
      },
      started: () => this.#token(),
      open: (_service: Service, { address }: Instance) => ({
        channel: this.#dial(address),
        path: 'local' as const,
        viaAgent: false,
      }),
      past: (_service: Service, { address }: Instance) => this.#dial(address),
      reached: () => {},
      unreached: () => {},
      after: (milliseconds: number, expired: () => void) => poller.deadlines.after(milliseconds, expired),
      breaker: () => undefined,
      policy: () => this.policy,
      settings: () => ({ attempts: 3, replayBuffer: 64 << 10, agentPatience: 1000, connectTimeout: 5000 }),
    };
    this.http = new HttpOutbound({
      ...search,
      node: 'node-a' as NodeName,
      reusing: () => this.#token(),
      mayReuse: () => true,
      limits: { rates: { admit: () => undefined }, services: this.limits },
      direct: (endpoint) => this.#dial(endpoint),
      shared: {
        route: () => this.shared ?? this.#route(),
        named: (services, host) => services.find(({ name }) => name === host),
      },
      explicit: {
        find: (host, port, usual) => this.find(host, port, usual),
        resolve: (host) => this.resolve(host),
        forbidden: (endpoint, local) => this.forbidden(endpoint, local),
      },
      requests: {
        started: () => this.begun++,
        ended: (record) => this.records.push(record),
      },
    });
    this.live = new Connections('0', {
      started: () => {},
      ended: (record) => this.connections.push(record),
    });
    const http: ProtocolHandler = (...connection) => this.http.accept(...connection);
    const detection = {
      detection: () => ({ enabled: true, timeout: 250, serverFirstPorts: [] }),
      detected: (what: Detected) => this.detected.push(what),
    };
    const detector = new Detector({ ...search, ...detection, http });
    const outbound = new Outbound(
      {
        ...search,
        route: () => this.shared ?? this.#route(),
        direct: (endpoint) => this.#dial(endpoint),
        ...detection,
        protocols: { http, auto: (...connection) => detector.accept(...connection) },
        httpAt: (...connection) => this.http.acceptShared(...connection),
        named: (services, host) => services.find(({ name }) => name === host),
        explicit: (client, entry, origin) => this.http.acceptExplicit(client, entry, origin),
        callerNode: 'node-a' as NodeName,
        callerService: () => undefined,
        admit: () => undefined,
        exempt: () => false,
        needsNames: () => false,
      },
      this.live,
    );
    const fd = createListeningSocket({ ip, port: 0, backlog: 128 });
    const own = localEndpointOf(fd)!;
    this.port = own.port;
    this.#listener = new TcpListener(poller, fd, {
      acceptBatch: 16,
      onConnection: (channel: TcpChannel) => {
        const from = channel.remoteEndpoint! as ClientAddress;
        if (this.explicit) {
          outbound.acceptExplicit(channel, from, own);
          return;
        }
        outbound.accept(channel, from, this.address as OriginalDestination, own);
      },
    });
  }

  get service(): Service {
    return {
      name: 'web' as ServiceName,
      protocol: this.protocol,
      mode: 'permissive',
      interchangeable: false,
      balance: 'round-robin',
      hosts: [],
      addresses: [],
      instances: this.instances,
    };
  }

  /** Puts the instances, as they are, into a catalogue of their own. */
  publish(): void {
    const { service } = this;
    const services = emptySnapshot.services.with([[service.name, service] as const]);
    this.http.use({ ...emptySnapshot, services });
  }

  /** A server of node's, as another instance. */
  async serve(handler: http.RequestListener): Promise<http.Server> {
    const server = http.createServer(handler);
    await this.#listen(server);
    this.#cleanUp.push(() => server.closeAllConnections());
    return server;
  }

  /** A server that says what it likes, as another instance. */
  async raw(onConnection: (socket: net.Socket) => void): Promise<net.Server> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      onConnection(socket);
    });
    await this.#listen(server);
    this.#cleanUp.push(() => {
      for (const socket of sockets) socket.destroy();
    });
    return server;
  }

  async #listen(server: net.Server): Promise<void> {
    await new Promise<void>((resolve) => server.listen(0, ip, resolve));
    this.#cleanUp.push(() => server.close());
    this.instances.push(instanceAt((server.address() as AddressInfo).port));
  }

  /** A caller that writes bytes of its own. */
  caller(): RawCaller {
    const caller = new RawCaller(net.connect({ host: ip, port: this.port, allowHalfOpen: true }));
    this.#cleanUp.push(() => caller.socket.destroy());
    return caller;
  }

  /** A caller on a channel of ours, which tells a reset from an end (libuv, after a short read, does not). */
  exact(text: string): { close: string | undefined; text: string } {
    const seen: { close: string | undefined; text: string } = { close: undefined, text: '' };
    const channel = TcpChannel.connect(this.poller, { ip, port: this.port }, { timeoutMs: 5000 });
    channel.handler = {
      data: (bytes) => {
        seen.text += Buffer.from(bytes).toString('latin1');
      },
      end: () => {},
      drain: () => {},
      close: ({ reason }) => {
        seen.close = reason;
      },
    };
    channel.write(Buffer.from(text));
    channel.resume();
    return seen;
  }

  /** Sends a request with node's client; `text` and `trailers` of the answer are complete. */
  async request(
    path: string,
    options: http.RequestOptions = {},
    body?: string | Buffer,
  ): Promise<http.IncomingMessage & { text: string }> {
    return new Promise((resolve, reject) => {
      const request = http.request({ host: ip, port: this.port, path, ...options }, (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('end', () =>
          resolve(Object.assign(response, { text: Buffer.concat(pieces).toString() })),
        );
        response.on('error', reject);
      });
      request.on('error', reject);
      request.end(body);
    });
  }

  close(): void {
    this.live.cut();
    this.http.drain();
    for (const each of this.#cleanUp.reverse()) each();
    this.#listener.close();
    this.poller.close();
  }

  #route(): OutboundRoute {
    return this.only === undefined
      ? { kind: 'service', service: this.service }
      : { kind: 'instance', service: this.service, instance: this.only };
  }

  #dial(endpoint: Endpoint): TcpChannel {
    this.dialled++;
    return TcpChannel.connect(this.poller, endpoint, { timeoutMs: 5000 });
  }

  #token() {
    this.active++;
    return {
      connected: () => {},
      answered: () => {},
      failed: () => {},
      finished: () => {
        this.active--;
      },
    };
  }
}

/** A caller's socket, and what it was told. */
class RawCaller {
  readonly socket: net.Socket;
  text = '';
  ended = false;
  error: string | undefined;
  closed = false;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on('data', (piece) => {
      this.text += piece.toString('latin1');
    });
    socket.on('end', () => {
      this.ended = true;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code;
    });
    socket.on('close', () => {
      this.closed = true;
    });
  }

  write(text: string | Uint8Array): void {
    this.socket.write(text);
  }
}
