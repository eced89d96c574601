import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ChannelMesh, retriesWith } from './channel-mesh.ts';

const GET = 'GET / HTTP/1.1\r\nHost: web\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
const BUSY = 'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy';

let mesh: ChannelMesh;
beforeEach(() => {
  ChannelMesh.install();
  mesh = new ChannelMesh();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('a bound on time', () => {
  it('of an attempt is followed by another one, and blamed on the instance', async () => {
    mesh.policy = { retries: retriesWith({ perTryTimeout: 200 }) };
    const caller = mesh.call(GET);
    mesh.last.takes();
    await mesh.pass(200);
    expect(mesh.dialled[0]!.resetWith).toBe('timeout');
    await mesh.pass(200);
    expect(mesh.to).toBe('1 2 3');
    mesh.last.answers(OK);
    await mesh.pass(1000);
    expect(caller.text).toBe(OK);
    expect(mesh.outcomes).toMatchObject([
      { statuses: [0], failed: false },
      { statuses: [], failed: true },
      { statuses: [200], failed: false },
    ]);
  });

  it('of an attempt ends with 504 where there is no other', async () => {
    mesh.policy = { retries: retriesWith({ perTryTimeout: 200, on: ['timeout'], attempts: 0 }) };
    const caller = mesh.call(GET);
    mesh.last.takes();
    await mesh.pass(200);
    expect(caller.text).toMatch(/^HTTP\/1\.1 504 .*mesh-error: timeout\r\n/s);
    caller.says(POST);
    await mesh.pass(200);
    expect(caller.text.match(/HTTP\/1\.1 504/g)).toHaveLength(2);
    expect(mesh.active).toBe(0);
  });

  it('of an attempt does not hold once its answer has begun', async () => {
    mesh.policy = { retries: retriesWith({ perTryTimeout: 200 }) };
    const caller = mesh.call(GET);
    mesh.last.answers(OK.slice(0, -1));
    await mesh.pass(5000);
    mesh.last.says('k');
    expect(caller.text).toBe(OK);
  });

  it('of a request holds for all attempts together', async () => {
    mesh.policy = {
      timeouts: { request: 1000 },
      retries: retriesWith({ attempts: 10, backoff: { base: 400, max: 400 } }),
    };
    const caller = mesh.call(GET);
    for (let attempt = 0; attempt < 4; attempt++) {
      mesh.last.answers(BUSY);
      await mesh.pass(200);
    }
    mesh.last.takes();
    await mesh.pass(200);
    expect(caller.text).toMatch(/^HTTP\/1\.1 504 .*mesh-error: request-timeout\r\n/s);
    expect(mesh.last.resetWith).toBe('timeout');
    expect(mesh.outcomes.at(-1)).toMatchObject({ statuses: [0], over: true });
    expect(mesh.records[0]).toMatchObject({ status: 504, reason: 'request-timeout' });
  });

  it('of a request resets the caller once its answer has begun', async () => {
    mesh.policy = { timeouts: { request: 1000 } };
    const caller = mesh.call(GET);
    mesh.last.answers(OK.slice(0, -1));
    await mesh.pass(1000);
    expect(caller.resetWith).toBe('timeout');
    expect(mesh.last.resetWith).toBe('timeout');
    expect(mesh.records[0]).toMatchObject({ status: 200, reason: 'request-timeout' });
    expect(mesh.active).toBe(0);
  });

  it('of a request is over with it', async () => {
    mesh.policy = { timeouts: { request: 1000 } };
    const caller = mesh.call(GET);
    mesh.last.answers(OK);
    await mesh.pass(500);
    caller.says(GET);
    await mesh.pass(600);
    mesh.last.answers(OK);
    expect(caller.text).toBe(OK + OK);
  });

  it('on reaching an instance is that of the policy, and another one is tried', async () => {
    mesh.policy = { timeouts: { connect: 300 } };
    const caller = mesh.call(GET);
    await mesh.pass(300);
    expect(mesh.dialled[0]!.resetWith).toBe('timeout');
    mesh.last.answers(OK);
    await mesh.pass(1000);
    expect(caller.text).toBe(OK);
    expect(mesh.to).toBe('1 2');
    expect(mesh.outcomes[0]).toMatchObject({ failed: true });
  });

  it('on silence ends a request without an answer, and no other', async () => {
    mesh.policy = { timeouts: { stream: 5000 } };
    const silent = mesh.call(GET);
    mesh.last.takes();
    const events = mesh.call(GET);
    const stream = mesh.last.answers('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
    for (let second = 0; second < 10; second++) {
      stream.says('1\r\nx\r\n');
      await mesh.pass(1000);
    }
    expect(silent.text).toMatch(/^HTTP\/1\.1 504 .*mesh-error: stream-timeout\r\n/s);
    expect(events.resetWith).toBeUndefined();
    await mesh.pass(7000);
    expect(events.resetWith).toBe('timeout');
    expect(stream.resetWith).toBe('timeout');
    expect(mesh.records).toMatchObject([
      { status: 504, reason: 'stream-timeout' },
      { status: 200, reason: 'stream-timeout' },
    ]);
  });

  it('on silence holds for what was upgraded where the policy has one', async () => {
    const upgrade = 'GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n';
    const switched = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n';
    const unbounded = mesh.call(upgrade);
    mesh.last.answers(switched);
    mesh.policy = { timeouts: { stream: 5000 } };
    const bounded = mesh.call(upgrade);
    mesh.last.answers(switched);
    for (let second = 0; second < 10; second++) {
      bounded.says('x');
      await mesh.pass(1000);
    }
    expect(bounded.resetWith).toBeUndefined();
    await mesh.pass(3_600_000);
    expect(bounded.resetWith).toBe('timeout');
    expect(unbounded.resetWith).toBeUndefined();
  });

  it('on idling ends a connection cleanly; one of its own is an hour', async () => {
    const kept = mesh.call(GET);
    mesh.last.answers(OK);
    await mesh.pass(3_590_000);
    expect(kept.ended).toBe(false);
    await mesh.pass(20_000);
    expect(kept.ended).toBe(true);
    mesh.policy = { timeouts: { idle: 3000 } };
    const idle = mesh.call(GET);
    mesh.last.answers(OK);
    await mesh.pass(2000);
    expect(idle.ended).toBe(false);
    await mesh.pass(4000);
    expect(idle.ended).toBe(true);
    expect(idle.resetWith).toBeUndefined();
  });

  it('is an hour for a caller that has ended, and takes nothing of its last answer', async () => {
    const caller = mesh.call(GET);
    caller.handler.end();
    mesh.last.answers(OK);
    expect(caller.ended).toBe(true);
    await mesh.pass(3_590_000);
    expect(caller.resetWith).toBeUndefined();
    await mesh.pass(20_000);
    expect(caller.resetWith).toBe('timeout');
    expect(mesh.ended).toHaveLength(1);
  });

  it('without a policy: half an hour of silence within a request', async () => {
    const caller = mesh.call(GET);
    mesh.last.takes();
    await mesh.pass(29 * 60_000);
    expect(caller.text).toBe('');
    await mesh.pass(60_000 + 2000);
    expect(caller.text).toContain('mesh-error: stream-timeout');
  });
});
