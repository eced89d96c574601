import { describe, expect, it } from 'vitest';
import { forwarding, isLoop, MAX_PASSES } from '../../../src/http/forwarding.ts';
import { requestHeadText } from '../../../src/http1/head-writer.ts';
import type { RequestHead } from '../../../src/http1/request-head.ts';
import { RequestParser } from '../../../src/http1/request-parser.ts';
import type { NodeName, ServiceName } from '../../../src/model/service.ts';

const node = 'node-a' as NodeName;
const service = 'shop' as ServiceName;

function headOf(lines: readonly string[], line = 'GET / HTTP/1.1', host = 'Host: web'): RequestHead {
  let head: RequestHead | undefined;
  const parser = new RequestParser({
    head: (each) => {
      head = each;
    },
    content: () => {},
    end: () => {},
  });
  const all = [line, ...(host === '' ? [] : [host]), ...lines];
  parser.push(Buffer.from(`${all.join('\r\n')}\r\n\r\n`, 'latin1'));
  return head!;
}

/** The fields that a server would see, lower-case names, in their order. */
function sent(head: RequestHead, from?: { callerIp: string | undefined }): Record<string, string[]> {
  const { callerIp } = from ?? { callerIp: '10.0.0.1' };
  const { changes } = forwarding(head, { node, service, callerIp });
  const fields: Record<string, string[]> = {};
  for (const line of requestHeadText(head, changes).split('\r\n').slice(1)) {
    const at = line.indexOf(': ');
    if (at < 0) continue;
    const name = line.slice(0, at).toLowerCase();
    fields[name] = [...(fields[name] ?? []), line.slice(at + 2)];
  }
  return fields;
}

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const PARENT = `00-${TRACE}-b7ad6b7169203331-00`;

describe('forwarding', () => {
  it('beyond the mesh adds nothing but what tells loops, and takes nothing away but what was for the proxy', () => {
    const line = 'GET http://example.com/ HTTP/1.1';
    const lines = ['Proxy-Authorization: Basic x', 'X-Forwarded-For: 1.2.3.4', `Traceparent: ${PARENT}`];
    const head = headOf(lines, line);
    const passage = { node, service, callerIp: '10.0.0.1', beyond: true } as const;
    const { changes, traceId } = forwarding(head, passage);
    expect(requestHeadText(head, changes).toLowerCase().split('\r\n')).toEqual([
      ...['get / http/1.1', 'host: example.com', 'x-forwarded-for: 1.2.3.4', `traceparent: ${PARENT}`],
      ...['via: 1.1 node-a', '', ''],
    ]);
    expect(traceId).toBe(TRACE);
    expect(forwarding(headOf([]), passage).traceId).toBeUndefined();
    expect(sent(head)['proxy-authorization']).toBeUndefined();
    expect(sent(headOf(['Proxy-Authorization: Basic x']))['proxy-authorization']).toEqual(['Basic x']);
  });

  it('makes what is not there', () => {
    const head = headOf([]);
    const fields = sent(head);
    expect(fields).toMatchObject({
      via: ['1.1 node-a'],
      'x-forwarded-for': ['10.0.0.1'],
      'x-forwarded-proto': ['http'],
      'x-forwarded-host': ['web'],
    });
    expect(fields['traceparent']?.[0]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(fields['x-request-id']?.[0]).toMatch(/^[0-9a-f]{32}$/);
    expect(sent(head)['x-request-id']).not.toEqual(fields['x-request-id']);
  });

  it('answers changes of one shape, or looking each of them up would be most of the work', () => {
    const heads = [headOf([]), headOf([`traceparent: ${PARENT}`]), headOf([], 'GET / HTTP/1.0', '')];
    const shapes = heads.map((head) =>
      Object.keys(forwarding(head, { node, service, callerIp: '::1' }).changes),
    );
    expect(new Set(shapes.map((names) => names.join())).size).toBe(1);
  });

  it('continues what is there', () => {
    const head = headOf([
      'Via: 1.0 edge',
      'X-Forwarded-For: 1.2.3.4, 5.6.7.8',
      'X-Forwarded-For: 9.9.9.9',
      'X-Forwarded-Proto: https',
      'X-Forwarded-Host: shop.example',
      'X-Request-Id: abc-1',
      `traceparent: ${PARENT}`,
      'tracestate: vendor=1',
    ]);
    expect(sent(head)).toMatchObject({
      via: ['1.0 edge', '1.1 node-a'],
      'x-forwarded-for': ['1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.1'],
      'x-forwarded-proto': ['https'],
      'x-forwarded-host': ['shop.example'],
      'x-request-id': ['abc-1'],
      traceparent: [PARENT],
      tracestate: ['vendor=1'],
    });
    expect(forwarding(head, { node, service, callerIp: undefined }).traceId).toBe(TRACE);
  });

  it.each([
    [[`traceparent: 00-${'0'.repeat(32)}-b7ad6b7169203331-01`]],
    [[`traceparent: ff-${TRACE}-b7ad6b7169203331-01`]],
    [[`traceparent: 00-${TRACE}-${'0'.repeat(16)}-01`]],
    [[`traceparent: ${PARENT.toUpperCase()}`]],
    [[`traceparent: ${PARENT}`, `traceparent: ${PARENT}`]],
  ])('begins a trace of its own where there is no valid one: %s', (lines) => {
    const fields = sent(headOf([...lines, 'tracestate: vendor=1']));
    expect(fields['traceparent']).toHaveLength(1);
    expect(fields['traceparent']?.[0]).not.toContain(TRACE);
    expect(fields['tracestate']).toBeUndefined();
  });

  it.each([
    [['X-Request-Id: two words']],
    [[`X-Request-Id: ${'x'.repeat(129)}`]],
    [['X-Request-Id: a', 'X-Request-Id: b']],
  ])('replaces a request id that is none: %s', (lines) => {
    const ids = sent(headOf(lines))['x-request-id'];
    expect(ids).toHaveLength(1);
    expect(ids?.[0]).toMatch(/^[0-9a-f]{32}$/);
  });

  it('names the service where HTTP/1.0 names nobody, and no caller where there is none', () => {
    const fields = sent(headOf([], 'GET / HTTP/1.0', ''), { callerIp: undefined });
    expect(fields['host']).toEqual(['shop']);
    expect(fields['via']).toEqual(['1.0 node-a']);
    expect(fields['x-forwarded-host']).toBeUndefined();
    expect(fields['x-forwarded-for']).toBeUndefined();
  });
});

describe('isLoop', () => {
  it('is a request that has passed this node too often, and no other', () => {
    const passed = (times: number) =>
      headOf(Array.from({ length: times }, () => 'Via: 1.1 edge, 1.1 node-a'));
    expect(isLoop(headOf([]), node)).toBe(false);
    expect(isLoop(passed(MAX_PASSES - 1), node)).toBe(false);
    expect(isLoop(passed(MAX_PASSES), node)).toBe(true);
    expect(isLoop(passed(MAX_PASSES), 'node-b' as NodeName)).toBe(false);
  });
});
