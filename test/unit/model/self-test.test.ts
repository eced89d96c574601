import { expect, it } from 'vitest';
import { selfTestAddress } from '../../../src/model/self-test.ts';
import { addressRange } from '../../../src/naming/address-bytes.ts';
import { VirtualAddresses } from '../../../src/naming/virtual-addresses.ts';

it.each([
  ['240.0.0.0/4', '240.0.0.1'],
  ['241.77.3.9/8', '241.0.0.1'],
  ['10.200.1.0/24', '10.200.1.1'],
  ['fd6d:6573:6800::/48', 'fd6d:6573:6800::1'],
  ['fd00:1:2:3::ffff/64', 'fd00:1:2:3::1'],
  ['off', undefined],
])('of %s is %s', (network, address) => {
  expect(selfTestAddress(network)).toBe(address);
});

it('is given to no service, even when nearly all others are', () => {
  const network = '10.200.1.0/24';
  const addresses = new VirtualAddresses({
    ipv4: addressRange(network),
    ipv6: undefined,
    reuseAfter: 1,
    changed: () => {},
    exhausted: () => {},
  });
  const given = Array.from({ length: 300 }, (_, i) => addresses.of(`service-${i}` as never)).flat();
  expect(given.length).toBeGreaterThan(200);
  expect(given).not.toContain(selfTestAddress(network));
});
