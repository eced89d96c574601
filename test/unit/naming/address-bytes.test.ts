import fc from 'fast-check';
import { expect, it, test } from 'vitest';
import { type Ip, parseIp } from '../../../src/model/address.ts';
import { addressBytes, addressOfBytes, addressRange, inRange } from '../../../src/naming/address-bytes.ts';

it('writes and reads addresses as everything else here does', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 255 })), { minLength: 16, maxLength: 16 }),
  );
  fc.assert(
    fc.property(bytes, (some) => {
      const list = [...some];
      const text = addressOfBytes(list);
      expect(parseIp(text)).toBe(text);
      // IPv4-mapped addresses are IPv4 here.
      if (!(list.length === 16 && !text.includes(':'))) expect(addressBytes(text)).toEqual(list);
    }),
  );
});

test.each([
  ['240.0.0.0/4', ['240.0.0.0', '255.255.255.255'], ['239.255.255.255', '10.0.0.1', '::']],
  ['10.7.3.0/24', ['10.7.3.9'], ['10.7.4.1']],
  ['10.7.3.77/24', ['10.7.3.9'], ['10.7.2.255']],
  ['fd6d:6573:6800::/48', ['fd6d:6573:6800::1', 'fd6d:6573:6800:ffff::'], ['fd6d:6573:6801::1', '240.0.0.1']],
  ['fd00::/13', ['fd07::'], ['fd08::']],
])('%s', (network, inside, outside) => {
  const range = addressRange(network)!;
  for (const ip of inside) expect(inRange(range, ip as Ip)).toBe(true);
  for (const ip of outside) expect(inRange(range, ip as Ip)).toBe(false);
});

it('is off', () => {
  expect(addressRange('off')).toBeUndefined();
});
