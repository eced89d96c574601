import type { RequestRecord } from '../../../src/model/request.ts';
import type { InstanceId, NodeName, ServiceName } from '../../../src/model/service.ts';

/** A request as most are. */
export const sampleRequest: RequestRecord = {
  id: '4711-17.3',
  startedAt: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
  durationMs: 2.3456789,
  callerNode: 'web1' as NodeName,
  callerService: 'shop' as ServiceName,
  caller: { unit: 'orders.service', user: 'orders' },
  callerProgram: undefined,
  callerAddress: '10.0.0.1:40000',
  service: 'payments' as ServiceName,
  route: undefined,
  instance: '10.0.0.2:80' as InstanceId,
  zone: 'dc1',
  path: 'tunnel',
  method: 'POST',
  authority: 'payments.mesh:80',
  target: '/v1/payments?retry=1',
  status: 201,
  requestBytes: 1000,
  responseBytes: 2000,
  attempts: 1,
  reused: true,
  reason: 'done',
  detail: undefined,
  traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
};
