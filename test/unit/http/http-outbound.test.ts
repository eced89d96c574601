import { beforeEach, describe, expect, it } from 'vitest';
import { identityOf, Naming, unknownIdentity } from '../../../src/caller/identity.ts';
import { HttpOutbound } from '../../../src/http/http-outbound.ts';
import type { ChannelClose } from '../../../src/io/channel.ts';
import { type ClientAddress, parseEndpoint } from '../../../src/model/address.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { noPolicy } from '../../../src/model/policy.ts';
import type { RequestRecord } from '../../../src/model/request.ts';
import type { Instance, InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { emptySnapshot } from '../../../src/model/snapshot.ts';
import { type ConnectionEntry, Connections } from '../../../src/proxy/connections.ts';
import type { AgentStream } from '../../../src/proxy/outbound-dependencies.ts';
import { MemoryChannel, turn } from '../proxy/memory-channel.ts';

const GET = 'GET / HTTP/1.1\r\nHost: web\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
const reset: ChannelClose = { reason: 'reset', delivered: true };
const lost: ChannelClose = { reason: 'tunnel-lost', delivered: true, source: 'peer' };
const refused: ChannelClose = { reason: 'refused', delivered: false, source: 'callee' };

function instance(id: string): Instance {
  return {
    id: id as InstanceId,
    address: parseEndpoint(`10.0.0.${id}:80`)!,
    node: `n${id}` as NodeName,
    zone: 'z',
    labels: {},
    weight: 100,
    draining: false,
  };
}

/** A stream through another agent. */
class Stream extends MemoryChannel implements AgentStream {
  silence = 0;
  doubtful = false;
  doubt(): void {}
  /** It keeps its bytes back. */
  holds = false;

  get bytesSent(): number {
    return this.holds ? 0 : Buffer.concat(this.written).length;
  }

  says(text: string): void {
    this.handler.data(Buffer.from(text, 'latin1'));
  }

  /** The request heads that were written, without what the agent adds. */
  get lines(): string[] {
    return this.text.match(/^[A-Z]+ \S+ HTTP\/1\.1$/gm) ?? [];
  }
}

class Caller extends MemoryChannel {
  readonly entry: ConnectionEntry;

  constructor(entry: ConnectionEntry) {
    super();
    this.entry = entry;
  }

  says(text: string): void {
    this.handler.data(Buffer.from(text, 'latin1'));
  }
}

let service: Service;
let opened: { to: string; stream: Stream }[];
let past: { to: string; stream: Stream }[];
let records: RequestRecord[];
let ended: ConnectionRecord[];
let active: number;
let timers: Map<() => void, number>;
let http: HttpOutbound;
let connections: Connections;

beforeEach(() => {
  service = {
    ...{ name: 'web' as ServiceName, protocol: 'http', mode: 'strict', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [instance('1'), instance('2')] },
  };
  opened = [];
  past = [];
  records = [];
  ended = [];
  active = 0;
  timers = new Map();
  const token = () => {
    active++;
    return { connected: () => {}, failed: () => {}, answered: () => {}, finished: () => active-- };
  };
  const stream = (list: typeof opened, { id }: Instance) => {
    const made = new Stream();
    list.push({ to: id, stream: made });
    return made;
  };
  connections = new Connections('0', { started: () => {}, ended: (record) => ended.push(record) });
  http = new HttpOutbound({
    node: 'me' as NodeName,
    pick: (of, exclude) => of.instances.find((candidate) => !exclude.has(candidate)),
    started: token,
    reusing: token,
    mayReuse: () => true,
    direct: () => new MemoryChannel(),
    shared: { route: () => ({ kind: 'passthrough' }), named: () => undefined },
    explicit: {
      find: (host) => ({ kind: 'unknown', host }),
      resolve: async () => [],
      forbidden: () => undefined,
    },
    open: (_service, to) => {
      const channel = stream(opened, to);
      return { channel, path: 'tunnel', viaAgent: true, agent: channel };
    },
    past: (_service, to) => stream(past, to),
    reached: () => {},
    unreached: () => {},
    after: (milliseconds, expired) => {
      timers.set(expired, milliseconds);
      return () => timers.delete(expired);
    },
    breaker: () => undefined,
    policy: () => noPolicy,
    settings: () => ({ attempts: 3, replayBuffer: 10, agentPatience: 1000, connectTimeout: 5000 }),
    requests: { started: () => {}, ended: (record) => records.push(record) },
  });
});

function call(program = 'unit:a', port = 4000): Caller {
  const address = parseEndpoint(`10.0.0.9:${port}`) as ClientAddress;
  const entry = connections.begin({
    ...{ direction: 'outbound', callerNode: 'me' as NodeName, callerService: undefined },
    ...{ callerAddress: `10.0.0.9:${port}`, destination: '10.1.0.1:80' },
  });
  entry.callerProgram = program;
  entry.service = service.name;
  const caller = new Caller(entry);
  http.accept(caller, entry, { address, program }, { service, instance: undefined });
  return caller;
}

/** The way opened with this number, from 0, accepted and answered. */
function answer(index: number, text = OK): Stream {
  const { stream } = opened[index]!;
  stream.handler.open?.();
  stream.says(text);
  return stream;
}

describe('a request through an agent', () => {
  it('travels with the opening, in one piece', () => {
    const caller = call();
    caller.says('POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello');
    const { stream } = opened[0]!;
    expect(stream.written).toHaveLength(1);
    expect(stream.text).toMatch(/^POST \/ HTTP\/1\.1\r\nhost: web\r\n.*\r\n\r\nhello$/s);
    answer(0);
    expect(caller.written).toHaveLength(1);
    expect(caller.text).toBe(OK);
  });

  it('is said again to another instance, as long as nobody has heard it, within the replay buffer', async () => {
    const caller = call();
    caller.says('POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 20\r\n\r\n0123456789');
    expect(caller.paused).toBe(true);
    opened[0]!.stream.close(refused);
    expect(opened[1]!.stream.text).toMatch(/0123456789$/);
    opened[1]!.stream.handler.open?.();
    expect(caller.paused).toBe(false);
    caller.says('9876543210');
    opened[1]!.stream.says(OK);
    expect(opened[1]!.stream.text).toMatch(/01234567899876543210$/);
    expect(caller.text).toBe(OK);
    expect(records[0]).toMatchObject({ attempts: 2, requestBytes: 20, instance: '2' });
  });

  it('is when it may have been heard, and may be heard twice', () => {
    const caller = call();
    caller.says(GET);
    opened[0]!.stream.close(lost);
    opened[1]!.stream.handler.open?.();
    opened[1]!.stream.close(reset);
    answer(2);
    expect(caller.text).toBe(OK);
    expect(records[0]).toMatchObject({ attempts: 3, reused: false, status: 200 });
    expect(active).toBe(0);
  });

  it('is by so many instances in all, and by those that lost it only when there is no other', () => {
    const put = 'PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody';
    for (const instances of [['1', '2', '3', '4'], ['1', '2'], ['1']]) {
      service = { ...service, instances: instances.map(instance) };
      opened.length = 0;
      const caller = call();
      caller.says(put);
      for (let index = 0; index < 3; index++) {
        const { stream } = opened[index]!;
        expect(stream.text).toMatch(/^PUT .*\r\n\r\nbody$/s);
        stream.handler.open?.();
        stream.close(reset);
      }
      expect(opened.map(({ to }) => to)).toEqual([0, 1, 2].map((index) => instances[index] ?? '1'));
      expect(caller.text).toMatch(/^HTTP\/1\.1 502 .*mesh-error: reset\r\n/s);
    }
    expect(active).toBe(0);
  });

  it('is not when it may have been heard otherwise', () => {
    const caller = call();
    caller.says('POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n');
    opened[0]!.stream.close(lost);
    expect(opened).toHaveLength(1);
    expect(caller.text).toMatch(/^HTTP\/1\.1 502 .*mesh-error: tunnel-lost\r\n/s);
    expect(active).toBe(0);
  });

  it('that nobody answers in time is 504', () => {
    service = { ...service, instances: [instance('1')] };
    const caller = call();
    caller.says(GET);
    const { stream } = opened[0]!;
    for (let round = 0; round < 2; round++) for (const expired of [...timers.keys()]) expired();
    expect(stream.resetWith).toBe('timeout');
    stream.close({ reason: 'local', delivered: false });
    expect(caller.text).toMatch(/^HTTP\/1\.1 504 .*mesh-error: timeout\r\n/s);
  });

  it('goes past the agent of a permissive service, and that way is not kept', async () => {
    service = { ...service, mode: 'permissive', instances: [instance('1')] };
    const caller = call();
    caller.says(GET);
    opened[0]!.stream.close({ reason: 'unreachable', delivered: false, source: 'peer' });
    past[0]!.stream.handler.open?.();
    past[0]!.stream.says(OK);
    expect(caller.text).toBe(OK);
    expect(http.pool.size).toBe(0);
    caller.says(GET);
    expect(opened).toHaveLength(2);
  });
});

describe('a channel that is kept', () => {
  it('is used for the next request, and told of it at once', () => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0);
    caller.says(GET);
    expect(opened).toHaveLength(1);
    expect(stream.lines).toHaveLength(2);
    stream.says(OK);
    expect(records[1]).toMatchObject({ reused: true, attempts: 1, path: 'tunnel' });
    expect(active).toBe(0);
  });

  it('is shared by connections of one program only', () => {
    call('unit:a').says(GET);
    answer(0);
    call('unit:b', 4001).says(GET);
    expect(opened).toHaveLength(2);
    call('unit:a', 4002).says(GET);
    expect(opened).toHaveLength(2);
  });

  it.each(['proxy-v2', 'transparent'] as const)(
    'is shared by nobody where the service is shown its callers: %s',
    (source) => {
      service = { ...service, source };
      const caller = call('unit:a', 4000);
      caller.says(GET);
      const stream = answer(0);
      call('unit:a', 4001).says(GET);
      expect(opened).toHaveLength(2);
      caller.says(GET);
      expect(stream.lines).toHaveLength(2);
    },
  );

  it('is tried once more on a new one for an idempotent request', () => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0);
    caller.says('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody');
    stream.close(reset);
    expect(opened[1]!.stream.text).toMatch(/^PUT .*body$/s);
    answer(1);
    expect(caller.text).toBe(OK + OK);
    expect(records[1]).toMatchObject({ attempts: 2, reused: false, status: 200 });
    expect(active).toBe(0);
  });

  it('is not once more when its content is over the replay buffer', () => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0);
    caller.says('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 11\r\n\r\n01234567890');
    stream.close(reset);
    expect(caller.text).toContain('HTTP/1.1 502');
  });

  it('is avoided with its instance, and so is every other that is kept', () => {
    const caller = call();
    const other = call();
    caller.says(GET);
    other.says(GET);
    const stream = answer(0);
    answer(1);
    expect(http.pool.size).toBe(2);
    caller.says(GET);
    opened[1]!.stream.close(reset);
    expect(opened.map(({ to }) => to)).toEqual(['1', '1', '2']);
    opened[2]!.stream.handler.open?.();
    opened[2]!.stream.close(reset);
    expect(opened).toHaveLength(4);
    expect(stream.lines).toHaveLength(1);
    opened[3]!.stream.close(reset);
    expect(caller.text).toContain('HTTP/1.1 502');
  });

  it('is not after a byte of the answer', () => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0);
    caller.says(GET);
    stream.says('H');
    stream.close(reset);
    expect(opened).toHaveLength(1);
    expect(caller.text).toContain('HTTP/1.1 502');
  });

  it('is for any method where nothing has left', () => {
    const post = 'POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody';
    for (const [holds, tried] of [
      [true, 2],
      [false, 1],
    ] as const) {
      opened.length = 0;
      const caller = call(`unit:${holds}`);
      caller.says(GET);
      const stream = answer(0);
      stream.holds = holds;
      caller.says(post);
      stream.close(lost);
      expect(opened).toHaveLength(tried);
      if (holds) expect(opened[1]!.stream.text).toMatch(/body$/);
    }
  });

  it('is not used in a tunnel that owes a sign of life', () => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0);
    stream.silence = 1000;
    caller.says(GET);
    expect(opened).toHaveLength(2);
    expect(stream.ended).toBe(true);
  });

  it.each([
    ['Connection: close', 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok'],
    ['bytes behind the answer', `${OK}x`],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok'],
  ])('is none after %s', (_what, text) => {
    const caller = call();
    caller.says(GET);
    const stream = answer(0, text);
    expect(http.pool.size).toBe(0);
    expect(stream.ended).toBe(true);
    expect(caller.text).toMatch(/\r\n\r\nok$/);
    expect(caller.ended).toBe(false);
    caller.says(GET);
    expect(opened).toHaveLength(2);
  });

  it('is reset when its other half does not end', () => {
    call().says(GET);
    const stream = answer(0, 'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok');
    const sweep = [...timers].find(([, milliseconds]) => milliseconds === 250)![0];
    sweep();
    expect(stream.resetWith).toBeUndefined();
    const { now } = performance;
    performance.now = () => now.call(performance) + 3000;
    try {
      for (const expired of [...timers.keys()]) expired();
    } finally {
      performance.now = now;
    }
    expect(stream.resetWith).toBe('none');
  });
});

describe("a caller's connection", () => {
  it('is not read while an answer is due and more requests wait', () => {
    const caller = call();
    caller.says(GET + GET);
    expect(caller.paused).toBe(true);
    answer(0);
    expect(opened[0]!.stream.lines).toHaveLength(2);
    opened[0]!.stream.says(OK);
    expect(caller.paused).toBe(false);
    expect(caller.text).toBe(OK + OK);
  });

  it('is slowed down, and slows down, by who does not read', () => {
    const caller = call();
    caller.says('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 30\r\n\r\n01234');
    const { stream } = opened[0]!;
    stream.handler.open?.();
    stream.full = true;
    caller.says('56789');
    expect(caller.paused).toBe(true);
    stream.full = false;
    stream.handler.drain();
    expect(caller.paused).toBe(false);
    caller.full = true;
    stream.says('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234');
    expect(stream.paused).toBe(true);
    caller.handler.drain();
    expect(stream.paused).toBe(false);
  });

  it('is read on when its upstream had room again before it opened', () => {
    const caller = call();
    caller.says('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 30\r\n\r\n');
    const { stream } = opened[0]!;
    stream.full = true;
    caller.says('01234');
    stream.full = false;
    stream.handler.drain();
    stream.handler.open?.();
    caller.says('56789');
    expect(caller.paused).toBe(false);
  });

  it('that is aborted takes its request along, and its search', () => {
    const waiting = call();
    waiting.says(GET);
    waiting.close(reset);
    expect(opened[0]!.stream.resetWith).toBe('none');
    const asking = call();
    asking.says(GET);
    opened[1]!.stream.handler.open?.();
    asking.entry.abort({ reason: 'draining', detail: 'drain deadline' });
    expect(opened[1]!.stream.resetWith).toBe('draining');
    expect(asking.resetWith).toBe('draining');
    expect(records.map(({ reason, status }) => [reason, status])).toEqual([
      ['client-reset', 0],
      ['draining', 0],
    ]);
    expect(ended.map(({ reason }) => reason)).toEqual(['client-reset', 'draining']);
    expect(active).toBe(0);
  });

  it('is ended with the next answer when its service is something else by now', () => {
    const caller = call();
    caller.says(GET);
    answer(0);
    const changed = { ...service, instances: [instance('2')] };
    http.use({ ...emptySnapshot, services: emptySnapshot.services.with([[service.name, changed] as const]) });
    caller.says(GET);
    expect(opened[1]!.to).toBe('2');
    answer(1);
    expect(caller.ended).toBe(false);
    http.use(emptySnapshot);
    caller.says(GET);
    answer(2);
    expect(caller.ended).toBe(true);
    expect(caller.text).toContain('connection: close');
  });

  it('is written down with the name of its caller, however late that comes', () => {
    const caller = call();
    const naming = new Naming(unknownIdentity, 'x');
    caller.entry.naming = naming;
    caller.says(GET);
    answer(0);
    expect(records).toHaveLength(0);
    naming.settle(identityOf({ unit: 'shop.service' }));
    expect(records[0]).toMatchObject({ caller: { unit: 'shop.service' }, id: '0-1.1' });
  });

  it('that keeps sending after its last answer is read, up to a bound', async () => {
    const caller = call();
    caller.says('BAD\r\n\r\n');
    expect(caller.text).toMatch(/^HTTP\/1\.1 400 /);
    expect(caller.ended).toBe(true);
    const piece = 'x'.repeat(1 << 20);
    for (let i = 0; i < 16; i++) caller.says(piece);
    expect(caller.paused).toBe(false);
    caller.says(piece);
    expect(caller.paused).toBe(true);
    caller.close({ reason: 'done', delivered: true });
    await turn();
    expect(ended[0]).toMatchObject({ reason: 'done' });
    expect(connections.size).toBe(0);
  });
});
