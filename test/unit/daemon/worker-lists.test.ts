import { expect, test } from 'vitest';
import { endedLast, endedNamed } from '../../../src/daemon/supervisor/worker-lists.ts';
import type { WorkerSet } from '../../../src/daemon/workers/worker-set.ts';
import type { ConnectionRecord } from '../../../src/model/connection.ts';
import { sampleRecord } from '../telemetry/sample-record.ts';
import { sampleRequest } from '../telemetry/sample-request.ts';

function listed(...connections: readonly Partial<ConnectionRecord>[]) {
  const items = [
    ...connections.map((one) => ({ kind: 'connection', ...sampleRecord, ...one })),
    { kind: 'request', ...sampleRequest, id: '1-1.1', status: 503 },
    { kind: 'request', ...sampleRequest, id: '1-1.2', status: 404, reason: 'done' },
  ];
  const worker = { index: 0, list: async () => ({ items, total: items.length }) };
  return { workers: [worker] as unknown as WorkerSet, leftovers: [] };
}

test('those that did not end well: denied ones too, also where the connection went on', async () => {
  const of = listed(
    { id: '1-1' },
    { id: '1-2', reason: 'refused' },
    { id: '1-3', access: 'deny: access rule no-admin of orders' },
    { id: '1-4', access: 'shadow-deny: access rule no-admin of orders' },
  );
  const ids = (await endedLast(of, true, 10)).map(({ id }) => id).sort();
  expect(ids).toEqual(['1-1.1', '1-2', '1-3']);
  expect(await endedLast(of, false, 10)).toHaveLength(6);
  expect((await endedNamed(of, '1-1')).map(({ id }) => id).sort()).toEqual(['1-1', '1-1.1', '1-1.2']);
});
