import { expect, test } from 'vitest';
import { Ended } from '../../../src/daemon/worker/ended.ts';
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
