import type { ConnectionRecord } from '../../../src/model/connection.ts';
import type { InstanceId, NodeName, ServiceName } from '../../../src/model/service.ts';

/** A connection as most are. */
export const sampleRecord: ConnectionRecord = {
  id: 'worker-0-17',
  direction: 'outbound',
  startedAt: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
  durationMs: 12.3456789,
  callerNode: 'web1' as NodeName,
  callerService: 'shop' as ServiceName,
  caller: { unit: 'orders.service', user: 'orders' },
  callerProgram: undefined,
  callerAddress: '10.0.0.1:40000',
  destination: '10.0.0.2:80',
  service: 'payments' as ServiceName,
  instance: '10.0.0.2:80' as InstanceId,
  zone: 'dc1',
  path: 'tunnel',
  bytesSent: 1000,
  bytesReceived: 2000,
  attempts: 1,
  access: undefined,
  detected: 'other',
  reason: 'done',
  detail: undefined,
};
