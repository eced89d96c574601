import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ChannelMesh, retriesWith } from './channel-mesh.ts';

const GET = 'GET / HTTP/1.1\r\nHost: web\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody';
const PUT = POST.replace('POST', 'PUT');
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

describe('a retry', () => {
  it('follows an answer with one of the statuses, at another instance each time', () => {
    mesh.policy = { retries: retriesWith({}) };
    const caller = mesh.call(GET);
    mesh.last.answers(BUSY);
    mesh.last.answers(BUSY);
    mesh.last.answers(OK);
    expect(mesh.to).toBe('1 2 3');
    expect(caller.text).toBe(OK);
    expect(mesh.outcomes.map(({ statuses }) => statuses)).toEqual([[503], [503], [200]]);
    expect(mesh.records[0]).toMatchObject({ status: 200, attempts: 3, responseBytes: 2, reason: 'done' });
    expect(mesh.active).toBe(0);
  });

  it('is made as often as the policy says; the last answer is the one that counts', () => {
    mesh.policy = { retries: retriesWith({ attempts: 1 }) };
    const caller = mesh.call(GET);
    mesh.last.answers(BUSY);
    mesh.last.answers(BUSY);
    expect(mesh.to).toBe('1 2');
    expect(caller.text).toBe(BUSY);
    expect(mesh.records[0]).toMatchObject({ status: 503, reason: 'done', responseBytes: 4 });
  });

  it('follows an answer with a field that matches', () => {
    const headers = [{ name: 'x-retry', match: { kind: 'regex', value: '^(yes|please)$' } }] as const;
    mesh.policy = { retries: retriesWith({ on: ['header'], headers }) };
    const caller = mesh.call(GET);
    mesh.last.answers('HTTP/1.1 200 OK\r\nX-Retry: please\r\ncontent-length: 0\r\n\r\n');
    mesh.last.answers('HTTP/1.1 200 OK\r\nx-retry: no\r\ncontent-length: 2\r\n\r\nno');
    expect(caller.text).toMatch(/^HTTP\/1\.1 200 OK\r\nx-retry: no\r\n.*no$/s);
    expect(mesh.dialled).toHaveLength(2);
  });

  it('keeps the channel of an answer that is small, and no other', async () => {
    mesh.policy = { retries: retriesWith({}) };
    mesh.call(GET);
    const [first] = mesh.dialled;
    first!.answers(BUSY.slice(0, -2));
    expect(mesh.http.pool.size).toBe(0);
    first!.says('sy');
    expect(mesh.http.pool.size).toBe(1);
    mesh.last.answers(BUSY.replace('length: 4', 'length: 99999'));
    expect(mesh.dialled[1]!.resetWith).toBeDefined();
    mesh.last.answers(BUSY.replace('busy', ''));
    await mesh.pass(1000);
    expect(mesh.http.pool.size).toBe(1);
  });

  it('drops a small answer whose end does not come', async () => {
    mesh.policy = { retries: retriesWith({}) };
    mesh.call(GET);
    const [first] = mesh.dialled;
    first!.answers('HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n');
    mesh.last.answers(OK);
    expect(first!.resetWith).toBeUndefined();
    await mesh.pass(1000);
    expect(first!.resetWith).toBe('none');
  });

  it('is for methods that are named, once they may have been heard', () => {
    mesh.policy = { retries: retriesWith({}) };
    const caller = mesh.call(POST);
    mesh.last.refuses();
    expect(mesh.to).toBe('1 2');
    mesh.last.answers(BUSY);
    expect(caller.text).toBe(BUSY);
    const lost = mesh.call(POST);
    mesh.last.loses();
    expect(lost.text).toContain('mesh-error: reset');
    expect(mesh.to).toBe('1 2 1');
    mesh.policy = { retries: retriesWith({ methods: ['POST'] }) };
    const named = mesh.call(POST);
    mesh.last.loses();
    expect(mesh.last.text).toMatch(/^POST .*\r\n\r\nbody$/s);
    mesh.last.answers(OK);
    expect(named.text).toBe(OK);
  });

  it.each([
    ['connect-failure', (to: ChannelMesh['last']) => to.refuses()],
    ['reset', (to: ChannelMesh['last']) => to.loses()],
    ['status', (to: ChannelMesh['last']) => to.answers(BUSY)],
  ] as const)('follows %s only where the policy names it', (condition, fails) => {
    for (const on of [['timeout'], [condition]] as const) {
      mesh = new ChannelMesh();
      mesh.policy = { retries: retriesWith({ on }) };
      const caller = mesh.call(GET);
      fails(mesh.last);
      expect(mesh.dialled).toHaveLength(on[0] === 'timeout' ? 1 : 2);
      if (on[0] === 'timeout') expect(caller.text).toMatch(/^HTTP\/1\.1 50[23] /);
    }
  });

  it('comes after a pause with full jitter, of up to twice as much each time', async () => {
    mesh.policy = { retries: retriesWith({ attempts: 3, backoff: { base: 100, max: 150 } }) };
    mesh.random = () => 0.5;
    mesh.call(GET);
    mesh.last.answers(BUSY);
    await mesh.pass(49);
    expect(mesh.dialled).toHaveLength(1);
    await mesh.pass(1);
    expect(mesh.dialled).toHaveLength(2);
    mesh.last.answers(BUSY);
    await mesh.pass(74);
    expect(mesh.dialled).toHaveLength(2);
    await mesh.pass(1);
    expect(mesh.dialled).toHaveLength(3);
  });

  it('is not made for a caller that goes while it is waited for', async () => {
    mesh.policy = { retries: retriesWith({ backoff: { base: 100, max: 100 } }) };
    const caller = mesh.call(GET);
    mesh.last.answers(BUSY);
    caller.close({ reason: 'reset', delivered: true });
    await mesh.pass(1000);
    expect(mesh.dialled).toHaveLength(1);
    expect(mesh.records[0]).toMatchObject({ reason: 'client-reset', status: 0 });
    expect(mesh.active).toBe(0);
  });

  it('takes from the budget; without one the answer at hand is passed on', () => {
    let left = 1;
    mesh.policy = { retries: retriesWith({}) };
    mesh.limits = {
      rates: { admit: () => undefined },
      services: { breaker: () => undefined, request: () => {}, tryRetry: () => left-- > 0 },
    };
    const caller = mesh.call(GET);
    mesh.last.refuses();
    mesh.last.answers(BUSY);
    expect(mesh.to).toBe('1 2');
    expect(caller.text).toBe(BUSY);
    const lost = mesh.call(GET);
    mesh.last.loses();
    expect(lost.text).toContain('502');
    const refused = mesh.call(GET);
    mesh.last.refuses();
    expect(refused.text).toMatch(/^HTTP\/1\.1 503 .*mesh-error: refused/s);
    expect(mesh.to).toBe('1 2 1 1');
  });

  it('sends the content again, also what comes after the answer that was refused', () => {
    mesh.policy = { retries: retriesWith({}) };
    const caller = mesh.call(
      'PUT / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n',
    );
    mesh.last.answers(BUSY);
    expect(mesh.dialled[0]!.resetWith).toBeDefined();
    mesh.last.takes();
    caller.says('4\r\nmore\r\n0\r\nx-end: yes\r\n\r\n');
    const { text } = mesh.last;
    expect(text).toMatch(/\r\n\r\n4\r\nsome\r\n4\r\nmore\r\n0\r\nx-end: yes\r\n\r\n$/);
    mesh.last.answers(OK);
    expect(caller.text).toBe(OK);
    expect(mesh.records[0]).toMatchObject({ requestBytes: 8, attempts: 2 });
  });

  it('is off once the content is more than may be kept', () => {
    mesh.policy = { retries: retriesWith({ replayBuffer: 8 }) };
    const caller = mesh.call('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\n');
    mesh.last.takes();
    caller.says('12345678');
    caller.says('9');
    mesh.last.answers(BUSY);
    expect(caller.text).toBe(BUSY);
    expect(mesh.dialled).toHaveLength(1);
    const fits = mesh.call(PUT);
    mesh.last.takes().answers(BUSY);
    mesh.last.answers(OK);
    expect(fits.text).toBe(OK);
  });

  it('slows a caller down that sends while it is waited for', async () => {
    mesh.policy = { retries: retriesWith({ backoff: { base: 100, max: 100 } }) };
    const caller = mesh.call('PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 8\r\n\r\nsome');
    mesh.last.answers(BUSY);
    expect(caller.paused).toBe(true);
    await mesh.pass(50);
    mesh.last.takes();
    expect(caller.paused).toBe(false);
    caller.says('more');
    expect(mesh.last.text).toMatch(/\r\n\r\nsomemore$/);
  });

  it('asks with Expect once more, and tells the caller once that it may go on', () => {
    mesh.policy = { retries: retriesWith({}) };
    const caller = mesh.call(
      'PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n',
    );
    mesh.last.answers('HTTP/1.1 100 Continue\r\n\r\n');
    caller.says('body');
    mesh.last.answers(BUSY);
    expect(mesh.last.text).toMatch(/expect: 100-continue\r\n.*\r\n\r\nbody$/is);
    mesh.last.answers(`HTTP/1.1 100 Continue\r\n\r\n${OK}`);
    expect(caller.text).toBe(`HTTP/1.1 100 Continue\r\n\r\n${OK}`);
  });

  it('is none once the protocol is another, or the answer has begun', () => {
    mesh.policy = { retries: retriesWith({ statuses: [101, 503], on: ['status', 'reset'] }) };
    const caller = mesh.call('GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n');
    mesh.last.answers('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhi');
    expect(caller.text).toMatch(/^HTTP\/1\.1 101 .*hi$/s);
    mesh.last.close({ reason: 'reset', delivered: true });
    const begun = mesh.call(GET);
    mesh.last.answers(OK.slice(0, -1));
    mesh.last.close({ reason: 'reset', delivered: true });
    expect(begun.resetWith).toBe('reset');
    expect(mesh.dialled).toHaveLength(2);
  });

  it('of HEAD is one like any other', () => {
    mesh.policy = { retries: retriesWith({}) };
    const caller = mesh.call(GET.replace('GET', 'HEAD'));
    mesh.last.answers(BUSY.slice(0, -4));
    expect(mesh.http.pool.size).toBe(1);
    mesh.last.answers(OK.slice(0, -2));
    expect(caller.text).toBe(OK.slice(0, -2));
  });

  it('is made though the first channel came from the pool, and counts', () => {
    mesh.policy = { retries: retriesWith({ attempts: 1, on: ['status'] }) };
    const caller = mesh.call(GET);
    mesh.last.answers(OK);
    caller.says(GET);
    mesh.last.close({ reason: 'reset', delivered: true });
    expect(mesh.to).toBe('1 2');
    mesh.last.loses();
    expect(mesh.to).toBe('1 2');
    expect(mesh.records[1]).toMatchObject({ attempts: 2, status: 502 });
    expect(mesh.records[1]!.failures).toMatchObject([
      { instance: '1', reason: 'reset', path: 'local' },
      { instance: '2', reason: 'reset', path: 'local' },
    ]);
    // Whoever closes a channel that idled did nothing wrong.
    expect(mesh.outcomes.map(({ statuses }) => statuses)).toEqual([[200], [], [0]]);
  });
});
