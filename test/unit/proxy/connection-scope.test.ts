import { expect, it } from 'vitest';
import type { ClientAddress, Ip } from '../../../src/model/address.ts';
import { connectionScope } from '../../../src/proxy/connection-scope.ts';
import { balance } from '../balance/samples.ts';

const address = { ip: '10.0.0.9' as Ip, port: 40_000 } as ClientAddress;

it('a connection has the key of its caller, where the policy hashes by callers: its program, else its address', () => {
  const byCaller = { balance: balance({ algorithm: 'ring-hash', hash: { kind: 'caller' } }) };
  const of = (program: string | undefined) => connectionScope(byCaller, { program, address });
  expect(of('unit:web.service')).toEqual({ choice: { key: 'unit:web.service' } });
  expect(of('unknown')).toEqual({ choice: { key: '10.0.0.9' } });
  expect(of(undefined)).toEqual({ choice: { key: '10.0.0.9' } });
  expect(connectionScope(byCaller, { program: undefined, address: undefined })).toEqual({});
});

it('what only requests carry is no key of a connection', () => {
  const byHeader = { balance: balance({ algorithm: 'ring-hash', hash: { kind: 'header', name: 'x-user' } }) };
  expect(connectionScope(byHeader, { program: 'unit:a', address })).toEqual({});
  expect(connectionScope({}, { program: 'unit:a', address })).toEqual({});
});
