import { once } from 'node:events';
import http from 'node:http';
import type net from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Ip } from '../../../src/model/address.ts';
import { MeshError } from '../../../src/model/errors.ts';
import type { Service, ServiceName } from '../../../src/model/service.ts';
import { HttpMesh } from './mesh.ts';

let mesh: HttpMesh;
beforeEach(() => {
  mesh = new HttpMesh();
  mesh.explicit = true;
});
afterEach(() => mesh.close());

const until = (condition: () => unknown) =>
  vi.waitFor(() => expect(condition()).toBeTruthy(), { timeout: 10_000, interval: 5 });

const portOf = (index: number) => mesh.instances[index]!.address.port;

/** Says what comes, in angle brackets, and ends when the other side does. */
function echo(socket: net.Socket): void {
  socket.on('data', (piece) => socket.write(`<${piece.toString()}>`));
  socket.on('end', () => socket.end());
}

describe('a request with a whole URL', () => {
  it('goes to the service, as if its caller had been intercepted', async () => {
    let seen: http.IncomingHttpHeaders = {};
    await mesh.serve((request, response) => {
      seen = request.headers;
      response.end(request.url);
    });
    const answer = await mesh.request('http://web/path?q', {
      headers: { host: 'other', 'proxy-connection': 'keep-alive', 'proxy-authorization': 'Basic x' },
    });
    expect(answer.text).toBe('/path?q');
    expect(seen).toMatchObject({ host: 'web', via: '1.1 node-a', 'x-forwarded-host': 'web' });
    expect(seen['proxy-authorization']).toBeUndefined();
    expect(seen['proxy-connection']).toBeUndefined();
    expect(mesh.records[0]).toMatchObject({ service: 'web', authority: 'web', path: 'local', status: 200 });
  });

  it('may go elsewhere than the one before on its connection, and on channels that stay', async () => {
    await mesh.serve((_request, response) => response.end('in'));
    const [inside] = mesh.instances;
    mesh.instances = [];
    let seen: http.IncomingHttpHeaders = {};
    await mesh.serve((request, response) => {
      seen = request.headers;
      response.end('out');
    });
    const [outside] = mesh.instances;
    mesh.instances = [inside!];
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = async (url: string) => (await mesh.request(url, { agent })).text;
    for (let i = 0; i < 3; i++) {
      expect(await ask('http://web/')).toBe('in');
      expect(await ask(`http://elsewhere.example:${outside!.address.port}/`)).toBe('out');
    }
    expect(mesh.dialled).toBe(2);
    // A catalogue says nothing of places outside, and gives their channels not up.
    mesh.publish();
    expect(await ask(`http://elsewhere.example:${outside!.address.port}/`)).toBe('out');
    expect(mesh.dialled).toBe(2);
    agent.destroy();
    // Nobody there asked for what the mesh tells its own.
    expect(Object.keys(seen).sort()).toEqual(['host', 'via']);
    await until(() => mesh.records.length === 7);
    expect(mesh.records[1]).toMatchObject({
      ...{ service: undefined, path: 'passthrough', authority: `elsewhere.example:${outside!.address.port}` },
      instance: `127.0.0.1:${outside!.address.port}`,
    });
    expect(mesh.records.map(({ reused }) => reused)).toEqual([false, false, ...Array(5).fill(true)]);
    await until(() => mesh.connections.length === 1);
    // It was made to no service.
    expect(mesh.connections[0]).toMatchObject({ service: undefined, reason: 'done' });
    expect(mesh.active).toBe(0);
  });

  it('that cannot be read is of no service, whatever the one before was', async () => {
    await mesh.serve((_request, response) => response.end('in'));
    const caller = mesh.caller();
    caller.write('GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n');
    await until(() => caller.ended);
    expect(mesh.records.map(({ service, status }) => `${service} ${status}`)).toEqual([
      ...['web 200', 'undefined 400'],
    ]);
  });

  it('waits for the address of an unknown name, and brings its content then', async () => {
    await mesh.serve((request, response) => request.pipe(response));
    const port = portOf(0);
    let resolved: (ips: readonly Ip[]) => void = () => {};
    mesh.resolve = () =>
      new Promise((resolve) => {
        resolved = resolve;
      });
    const caller = mesh.caller();
    const head = (length: number) =>
      `POST http://slow.example:${port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`;
    caller.write(`${head(5)}hel`);
    await until(() => mesh.begun === 1);
    expect(mesh.dialled).toBe(0);
    resolved(['127.0.0.1' as Ip]);
    caller.write('lo');
    await until(() => caller.text.includes('hello\r\n0\r\n\r\n'));
    // All of it at once, and the next one behind.
    mesh.resolve = async () => ['127.0.0.1' as Ip];
    caller.write(`${head(3)}one${head(3)}two${head(0)}`);
    await until(() => mesh.records.length === 4);
    await until(() => caller.text.match(/HTTP\/1.1 200/g)?.length === 4);
    expect(caller.text.match(/\r\n3\r\n(one|two)\r\n/g)).toHaveLength(2);
    expect(mesh.records.every(({ status }) => status === 200)).toBe(true);
  });

  it('is over with its caller while a name is asked for', async () => {
    mesh.resolve = () => new Promise(() => {});
    const caller = mesh.caller();
    caller.write('GET http://slow.example/ HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(() => mesh.begun === 1);
    caller.socket.resetAndDestroy();
    await until(() => mesh.records.length === 1);
    expect(mesh.records[0]).toMatchObject({ reason: 'client-reset', status: 0 });
    expect(mesh.connections).toHaveLength(1);
  });

  it('goes to the next address of a name where the first one does not answer', async () => {
    await mesh.serve((_request, response) => response.end('second'));
    mesh.resolve = async () => ['127.0.0.2' as Ip, '127.0.0.1' as Ip];
    const answer = await mesh.request(`http://two.example:${portOf(0)}/`);
    expect(answer.text).toBe('second');
    expect(mesh.records[0]).toMatchObject({ attempts: 2, path: 'passthrough' });
  });

  it('goes to a service where the name leads to an address of it', async () => {
    await mesh.serve((_request, response) => response.end('service'));
    const { find } = mesh;
    mesh.find = (host, port, usual) =>
      host === '127.0.0.1' ? { kind: 'service', service: mesh.service } : find(host, port, usual);
    expect((await mesh.request('http://alias.example/')).text).toBe('service');
    expect(mesh.records[0]).toMatchObject({ service: 'web', path: 'local' });
  });

  it.each([
    ['https', 'https://web/', 400, 'target-invalid'],
    ['a name without address', 'http://none.example/', 503, 'no-service'],
    ['a name that is not resolved in time', 'http://late.example/', 504, 'timeout'],
    ['itself', 'http://me.example/', 508, 'loop'],
    ['a forbidden address', 'http://10.9.9.9/', 403, 'denied'],
    ['a name for it', 'http://forbidden.example/', 403, 'denied'],
    ['a port that the service has not', 'http://web:81/', 503, 'refused'],
  ])('is answered where it cannot go to %s', async (_what, url, status, reason) => {
    const { find } = mesh;
    mesh.find = (host, port, usual) => {
      if (port === 81) return { kind: 'refuse', reason: 'refused', detail: 'web has no port 81' };
      if (host === '127.0.0.9') return { kind: 'refuse', reason: 'loop', detail: 'this agent itself' };
      return find(host, port, usual);
    };
    mesh.forbidden = ({ ip }, local) => (ip === '10.9.9.9' && local ? 'for a reason' : undefined);
    mesh.resolve = async (host) => {
      if (host === 'late.example') throw new MeshError('timeout', 'agent', 'late');
      if (host === 'me.example') return ['127.0.0.9' as Ip];
      return host === 'forbidden.example' ? ['10.9.9.9' as Ip] : [];
    };
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 2; i++) {
      const answer = await mesh.request(url, { agent });
      expect(answer.statusCode).toBe(status);
      expect(answer.headers['mesh-error']).toBe(reason);
    }
    agent.destroy();
    // The connection is as good as before.
    await until(() => mesh.connections.length === 1);
    expect(mesh.records).toHaveLength(2);
    expect(mesh.records[0]).toMatchObject({ status, reason, path: 'none', service: undefined });
    expect(mesh.dialled).toBe(0);
  });
});

describe('a request in the form for servers', () => {
  it('goes to the service that its Host names', async () => {
    await mesh.serve((_request, response) => response.end('hello'));
    expect((await mesh.request('/', { headers: { host: 'web' } })).text).toBe('hello');
  });

  it.each(['example.com', '10.0.0.1'])('is refused for any other: %s', async (host) => {
    mesh.resolve = () => expect.unreachable();
    const answer = await mesh.request('/', { headers: { host } });
    expect(answer.statusCode).toBe(400);
    expect(answer.headers['mesh-error']).toBe('target-invalid');
    expect(answer.text).toContain('CONNECT');
  });
});

describe('CONNECT', () => {
  const connect = (authority: string, rest = '') =>
    `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n${rest}`;
  const OK = 'HTTP/1.1 200 Connection Established\r\n\r\n';

  it('brings bytes to a place outside as they are, the early ones too, and each end by itself', async () => {
    await mesh.raw(echo);
    const caller = mesh.caller();
    caller.write(connect(`far.example:${portOf(0)}`, 'early\r\n\r\n'));
    await until(() => caller.text === `${OK}<early\r\n\r\n>`);
    caller.write('late');
    await until(() => caller.text.endsWith('<late>'));
    expect(mesh.records).toHaveLength(0);
    caller.socket.end();
    await until(() => caller.ended && mesh.connections.length === 1);
    expect(mesh.records).toHaveLength(1);
    expect(mesh.records[0]).toMatchObject({
      ...{ method: 'CONNECT', authority: `far.example:${portOf(0)}`, status: 200, reason: 'done' },
      ...{ requestBytes: 13, responseBytes: 17, path: 'passthrough', service: undefined },
    });
  });

  it('to a service finds an instance, another one where the first does not answer', async () => {
    const dead = await mesh.raw(() => {});
    await new Promise((resolve) => dead.close(resolve));
    await mesh.raw(echo);
    mesh.protocol = 'tcp';
    const caller = mesh.caller();
    caller.write(connect('web:5432', 'x'));
    await until(() => caller.text === `${OK}<x>`);
    // Whoever looks at what lives sees where it goes.
    const place = { service: 'web', path: 'local', instance: mesh.instances[1]!.id };
    expect(mesh.live.entries()[0]).toMatchObject(place);
    caller.socket.resetAndDestroy();
    await until(() => mesh.connections.length === 1);
    expect(mesh.records[0]).toMatchObject({ service: 'web', attempts: 2, reason: 'client-reset' });
    expect(mesh.connections[0]).toMatchObject({ service: 'web', path: 'local', reason: 'client-reset' });
    expect(mesh.active).toBe(0);
  });

  it('is told what the server said first', async () => {
    await mesh.raw((socket) => void socket.write('220 hello\r\n'));
    mesh.protocol = 'tcp';
    const caller = mesh.caller();
    caller.write(connect('web:25'));
    await until(() => caller.text === `${OK}220 hello\r\n`);
  });

  it('to a service that speaks HTTP is read like any connection to it', async () => {
    await mesh.serve((request, response) => response.end(`${request.headers.host} ${request.url}`));
    const caller = mesh.caller();
    const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: any\r\n\r\n`;
    caller.write(connect('web:80', get('/1')));
    await until(() => caller.text.endsWith('any /1'));
    caller.write(get('/2') + get('/3'));
    await until(() => caller.text.endsWith('any /3'));
    expect(mesh.records.map(({ method, target }) => `${method} ${target}`)).toEqual([
      ...['CONNECT web:80', 'GET /1', 'GET /2', 'GET /3'],
    ]);
    expect(mesh.records.map(({ id }) => id)).toEqual(['0-1.1', '0-1.2', '0-1.3', '0-1.4']);
    caller.write(connect('web:80'));
    await until(() => caller.ended);
    expect(caller.text).toContain('HTTP/1.1 501 ');
  });

  it('brings a switch of protocols, as WebSocket clients ask for it', async () => {
    const server = await mesh.serve(() => {});
    server.on('upgrade', (_request, socket: net.Socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n');
      echo(socket);
    });
    const caller = mesh.caller();
    const upgrade = 'GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n';
    caller.write(connect('web:80', `${upgrade}hello`));
    await until(() => caller.text.endsWith('<hello>'));
    caller.socket.end();
    await until(() => mesh.connections.length === 1);
    expect(mesh.records.map(({ method, status }) => `${method} ${status}`)).toEqual([
      'CONNECT 200',
      'GET 101',
    ]);
  });

  it('that comes to nothing says why, and ends the connection', async () => {
    mesh.protocol = 'tcp';
    const caller = mesh.caller();
    caller.write(connect('web:1', 'bytes for nobody'));
    await until(() => caller.ended);
    expect(caller.text).toMatch(/^HTTP\/1\.1 503 .*\r\nmesh-error: no-instance\r\n/s);
    expect(mesh.records[0]).toMatchObject({ method: 'CONNECT', status: 503, reason: 'no-instance' });

    mesh.forbidden = () => 'for a reason';
    const other = mesh.caller();
    other.write(connect('10.0.0.1:22'));
    await until(() => other.ended);
    expect(other.text).toMatch(/^HTTP\/1\.1 403 .*mesh-error: denied\r\n/s);
    await until(() => mesh.connections.length === 0);
  });

  it('slows down whoever is faster, both ways', async () => {
    const size = 32 << 20;
    let server: net.Socket | undefined;
    await mesh.raw((socket) => {
      server = socket.pause();
    });
    const caller = mesh.caller();
    caller.write(connect(`far.example:${portOf(0)}`));
    await until(() => server !== undefined && caller.text === OK);
    caller.socket.pause().removeAllListeners('data');
    caller.socket.write(Buffer.alloc(size, 'a'));
    server!.write(Buffer.alloc(size, 'b'));
    let last = -1;
    await vi.waitFor(
      () => {
        const moved = caller.socket.writableLength + server!.writableLength;
        const stalled = moved === last;
        last = moved;
        expect(stalled).toBe(true);
      },
      { timeout: 10_000, interval: 200 },
    );
    expect(mesh.poller.heldBytes).toBeLessThan(4 << 20);
    const count = async (socket: net.Socket) => {
      let bytes = 0;
      socket.on('data', (piece) => {
        bytes += piece.length;
      });
      socket.resume();
      socket.end();
      await once(socket, 'end');
      return bytes;
    };
    expect(await Promise.all([count(caller.socket), count(server!)])).toEqual([size, size]);
    await until(() => mesh.records.some(({ requestBytes }) => requestBytes === size));
  });
});

describe('a connection to an address that services share', () => {
  const named = (name: string): Service => ({ ...mesh.service, name: name as ServiceName });

  it('goes with each request where its Host says, and on to the address for other names', async () => {
    mesh.explicit = false;
    const other = http.createServer((_request, response) => response.end('own server'));
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    mesh.address = { ip: '127.0.0.1' as Ip, port: (other.address() as net.AddressInfo).port };
    await mesh.serve((request, response) => response.end(`service ${request.headers.host}`));
    mesh.shared = { kind: 'shared', services: [named('a'), named('b')], strict: false };
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = async (host: string) => (await mesh.request('/', { agent, headers: { host } })).text;
    expect(await ask('a')).toBe('service a');
    expect(await ask('unknown')).toBe('own server');
    expect(await ask('b:80')).toBe('service b:80');
    await until(() => mesh.records.length === 3);
    expect(mesh.records.map(({ service, path }) => `${service} ${path}`)).toEqual([
      ...['a local', 'undefined passthrough', 'b local'],
    ]);
    mesh.shared = { ...mesh.shared, strict: true };
    const refused = await mesh.request('/', { agent, headers: { host: 'unknown' } });
    expect(refused.statusCode).toBe(503);
    expect(refused.headers['mesh-error']).toBe('configuration');
    agent.destroy();
    other.close();
  });
});
