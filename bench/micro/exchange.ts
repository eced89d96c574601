import { Balancer } from '../../src/balance/balancer.ts';
import { HttpOutbound } from '../../src/http/http-outbound.ts';
import type { Channel, ChannelHandler } from '../../src/io/channel.ts';
import { type ClientAddress, parseEndpoint } from '../../src/model/address.ts';
import { noPolicy } from '../../src/model/policy.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../src/model/service.ts';
import { emptySnapshot } from '../../src/model/snapshot.ts';
import { Connections } from '../../src/proxy/connections.ts';
import { AccessLog } from '../../src/telemetry/access-log.ts';
import { Counters } from '../../src/telemetry/counters.ts';
import { RequestMetrics } from '../../src/telemetry/request-metrics.ts';
import { RequestRecorder } from '../../src/telemetry/request-recorder.ts';
import { measure } from './measure.ts';

/*
 * What a request costs from the bytes of its caller to the record of its end, with all stages but without any I/O; for a
 * service without a policy, in a catalogue of 100:
 *
 *   npx tsc -p tsconfig.tools.json && node build/bench/micro/exchange.js
 *
 * Callers are many, as an exchange that is called over and over with the same objects would be compiled for these.
 */

const SERVICES = 100;
const INSTANCES = 2;
const CALLERS = 32;
/** After so many requests of each caller there is a channel to each of its instances, which is kept. */
const FIRST_ROUNDS = 20;

const answer = Buffer.from(
  [
    'HTTP/1.1 200 OK',
    'Server: nginx/1.22.1',
    'Date: Sat, 21 Nov 2026 15:57:44 GMT',
    'Content-Type: application/octet-stream',
    'Content-Length: 12',
    'Connection: keep-alive',
    '',
    'hello world\n',
  ].join('\r\n'),
  'latin1',
);
const short = Buffer.from('GET / HTTP/1.1\r\nHost: 10.213.0.2:8080\r\n\r\n', 'latin1');
const usual = Buffer.from(
  [
    'GET /api/v1/orders/4711?expand=lines HTTP/1.1',
    'Host: orders.shop.internal:8080',
    'User-Agent: shop-frontend/4.2',
    'Accept: application/json',
    'Accept-Encoding: gzip, deflate, br',
    'Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'X-Request-Id: b7ad6b71-6920-3331-0af7-651916cd43dd',
    'Cookie: session=0af7651916cd43dd8448eb211c80319c',
    '',
    '',
  ].join('\r\n'),
  'latin1',
);

/** A channel whose other end takes everything. */
class Sink implements Channel {
  handler: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };
  readonly pendingBytes = 0;
  written = 0;
  write(bytes: Uint8Array): boolean {
    this.written += bytes.length;
    return true;
  }
  end(): void {}
  reset(): void {}
  pause(): void {}
  resume(): void {}
}

let asked: Sink | undefined;

class ServerEnd extends Sink {
  override write(bytes: Uint8Array): boolean {
    asked = this;
    return super.write(bytes);
  }
}

function service(index: number): Service {
  return {
    ...{
      name: `service-${index}` as ServiceName,
      protocol: 'http',
      mode: 'permissive',
      interchangeable: false,
    },
    ...{ balance: 'round-robin', hosts: [], addresses: [] },
    instances: Array.from(
      { length: INSTANCES },
      (_, at): Instance => ({
        id: `10.0.${index}.${at}:80` as InstanceId,
        address: parseEndpoint(`10.0.${index}.${at}:80`)!,
        ...{ zone: 'z', labels: {}, weight: 100, draining: false },
      }),
    ),
  };
}

const services = Array.from({ length: SERVICES }, (_, index) => service(index));
const snapshot = {
  ...emptySnapshot,
  services: emptySnapshot.services.with(services.map((each) => [each.name, each] as const)),
};
const node = 'node' as NodeName;
const settings = {
  ...{ attempts: 3, replayBuffer: 65_536, agentPatience: 1000, connectTimeout: 5000 },
};
const balancer = new Balancer({
  locality: { node, zone: 'z', otherZones: [] },
  ejection: { ejectAfter: 5, ejectBase: 30_000, ejectMax: 300_000, maxEjectedPercent: 50 },
});
balancer.use(snapshot);
const http = new HttpOutbound({
  node,
  pick: (of, exclude, choice) => balancer.pick(of, exclude, choice),
  started: (of, instance) => balancer.started(of, instance),
  reusing: (of, instance) => balancer.started(of, instance),
  open: () => {
    const channel = new ServerEnd();
    queueMicrotask(() => channel.handler.open?.());
    return { channel, path: 'direct', viaAgent: false };
  },
  past: () => new Sink(),
  direct: () => new Sink(),
  shared: { route: () => ({ kind: 'passthrough' }), named: () => undefined },
  explicit: {
    find: (host) => ({ kind: 'unknown', host }),
    resolve: async () => [],
    forbidden: () => undefined,
  },
  mayReuse: () => true,
  reached: () => {},
  unreached: () => {},
  after: () => () => {},
  policy: () => noPolicy,
  breaker: () => undefined,
  settings: () => settings,
  requests: new RequestRecorder(
    new RequestMetrics(new Counters()),
    new AccessLog({ target: 'off', bufferBytes: 0 }),
    () => 'all',
  ),
});
http.use(snapshot);

const connections = new Connections('0', { started: () => {}, ended: () => {} });
const callers = Array.from({ length: CALLERS }, (_, index) => {
  const address = parseEndpoint(`10.1.0.9:${4000 + index}`) as ClientAddress;
  const target = services[index % SERVICES]!;
  const entry = connections.begin({
    ...{ direction: 'outbound', callerNode: node, callerService: undefined },
    ...{ callerAddress: `10.1.0.9:${4000 + index}`, destination: '10.1.0.1:80' },
  });
  entry.callerProgram = 'bench.service';
  entry.service = target.name;
  const channel = new Sink();
  http.accept(
    channel,
    entry,
    { address, program: 'bench.service' },
    { service: target, instance: undefined },
  );
  return channel;
});

/** One request of the next caller, and its answer. */
let turn = 0;
function request(bytes: Uint8Array): void {
  const caller = callers[turn++ % CALLERS]!;
  const before = caller.written;
  caller.handler.data(bytes);
  asked!.handler.data(answer);
  if (caller.written === before) throw new Error('no answer: the request waits for a channel');
}

for (let n = 0; n < CALLERS * FIRST_ROUNDS; n++) {
  callers[n % CALLERS]!.handler.data(short);
  await Promise.resolve();
  asked!.handler.data(answer);
}
measure(`exchange: a request of ${short.length} bytes`, () => request(short));
measure(`exchange: a request of ${usual.length} bytes`, () => request(usual));
