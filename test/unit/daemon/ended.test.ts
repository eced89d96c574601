import { expect, test } from 'vitest';
import { parseListing } from '../../../src/daemon/control/listings.ts';
import { Ended } from '../../../src/daemon/worker/ended.ts';
import type { InstanceId } from '../../../src/model/service.ts';
import { sampleRecord } from '../telemetry/sample-record.ts';
import { sampleRequest } from '../telemetry/sample-request.ts';

test('the newest of both kinds, as many as may be', () => {
  const ended = new Ended();
  for (let i = 1; i <= 1500; i++) {
    ended.connection({ ...sampleRecord, id: `1-${i}` });
    ended.request({ ...sampleRequest, id: `1-${i}.1`, target: `/${'x'.repeat(5000)}` });
  }
  expect(ended.size).toBe(2000);
  const few = ended.list(4);
  expect(few.map(({ kind, id }) => `${kind} ${id}`)).toEqual([
    ...['request 1-1500.1', 'request 1-1499.1', 'connection 1-1500', 'connection 1-1499'],
  ]);
  expect(few[0]).toMatchObject({ target: `/${'x'.repeat(499)}` });
  const all = ended.list(10_000);
  expect(all).toHaveLength(2000);
  expect(all.at(-1)).toMatchObject({ kind: 'connection', id: '1-501' });
});

test('whatever others put into a record, the supervisor takes the list', () => {
  const ended = new Ended();
  const long = 'x'.repeat(8000);
  const failures = [
    { instance: 'i' as InstanceId, path: 'tunnel', reason: 'refused', detail: long },
  ] as const;
  ended.connection({ ...sampleRecord, access: `deny: ${long}`, detail: long, failures });
  ended.request({ ...sampleRequest, authority: long, target: `/${long}`, detail: long, failures });
  const items = ended.list(10);
  expect(parseListing('ended', { items, total: 2 }, 10)?.items).toHaveLength(2);
  expect(items[0]).toMatchObject({ authority: 'x'.repeat(500), failures: [{ detail: 'x'.repeat(500) }] });
});
