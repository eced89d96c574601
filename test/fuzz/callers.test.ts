import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cgroupName } from '../../src/caller/cgroup-name.ts';
import { localIpv4, localIpv6 } from '../../src/caller/local-addresses.ts';
import { decodeSourcePort } from '../../src/io/netlink-conntrack.ts';
import { decodeOwner } from '../../src/io/netlink-sock-diag.ts';
import { parseIp } from '../../src/model/address.ts';
import { callerText, parseCallerText } from '../../src/model/caller.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`callers fuzz: seed ${seed}, ${runs} runs`);
const check = (property: fc.IRawProperty<unknown>) => fc.assert(property, { numRuns: runs, seed });

const SEQUENCE = 5;

/** A message with the right header and a state and inode that say somebody's, and anything else. */
const message = fc.tuple(fc.uint8Array({ maxLength: 200 }), fc.boolean()).map(([rest, headed]) => {
  const bytes = new Uint8Array(new ArrayBuffer(rest.length));
  bytes.set(rest);
  if (headed && bytes.length >= 88) {
    const view = new DataView(bytes.buffer);
    view.setUint16(4, 20, true);
    view.setUint32(8, SEQUENCE, true);
    view.setUint8(17, 1);
  }
  return bytes;
});

test('whatever arrives from the kernel, an answer has an inode and numbers that are exact', () => {
  check(
    fc.property(message, fc.integer({ min: -1, max: 2_000 }), (bytes, length) => {
      const owner = { uid: -1, cgroup: -1 };
      const view = new DataView(bytes.buffer);
      if (decodeOwner(view, length, SEQUENCE, owner) !== 'owner') return;
      expect(view.getUint32(84, true)).not.toBe(0);
      expect(owner.uid).toBeGreaterThanOrEqual(0);
      expect(Number.isSafeInteger(owner.cgroup)).toBe(true);
      expect(owner.cgroup).toBeGreaterThanOrEqual(0);
    }),
  );
});

const part = fc.oneof(
  fc.constantFrom(
    'system.slice',
    'user.slice',
    'a.slice',
    'orders.service',
    'init.scope',
    'docker',
    'kubepods',
  ),
  fc.constant(`docker-${'0f'.repeat(32)}.scope`),
  fc.string({ unit: 'binary', maxLength: 300 }).map((text) => text.replaceAll('/', '')),
);

test('whatever a directory is called, a name can travel in an OPEN frame, and users name nothing', () => {
  check(
    fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
      const name = cgroupName(`/${parts.join('/')}`);
      const text = callerText(name);
      expect(parseCallerText(text)).toBe(text);
      if (parts[0] === 'user.slice') expect(text).toBe('unknown');
      if (name.unit !== undefined) expect(parts).toContain(name.unit);
    }),
  );
});

test('whatever a file of /proc says, addresses are addresses, and few', () => {
  const line = fc.oneof(
    fc.constantFrom('  |-- 172.17.0.2', '     /32 host LOCAL', '|-- 127.0.0.1', '|-- 999.1.1.1', '|-- '),
    fc.constantFrom(`fd82${'0'.repeat(28)} 02 40 00 80 eth0`, `${'f'.repeat(32)} 1 1 00 80 x`),
    fc.string({ unit: 'binary', maxLength: 60 }),
  );
  check(
    fc.property(fc.array(line, { maxLength: 200 }), (lines) => {
      for (const found of [localIpv4(lines.join('\n')), localIpv6(lines.join('\n'))]) {
        expect(found.length).toBeLessThanOrEqual(64);
        for (const ip of found) expect(parseIp(ip)).toBe(ip);
      }
    }),
  );
});

test('whatever connection tracking answers, a port is a port', () => {
  // Pieces of real answers, nested and cut anywhere.
  const attribute = fc
    .tuple(
      fc.constantFrom(1, 2, 0x8001, 0x8002),
      fc.integer({ min: 0, max: 40 }),
      fc.uint8Array({ maxLength: 24 }),
    )
    .map(([type, length, payload]) => [length & 255, length >> 8, type & 255, type >> 8, ...payload]);
  check(
    fc.property(
      fc.array(attribute, { maxLength: 8 }),
      fc.integer({ min: -1, max: 400 }),
      (attributes, length) => {
        const header = [0, 0, 0, 0, 0, 1, 0, 0, SEQUENCE, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        const bytes = new Uint8Array([...header, ...attributes.flat()]);
        const port = decodeSourcePort(new DataView(bytes.buffer), Math.min(length, bytes.length), SEQUENCE);
        if (port === undefined) return;
        expect(port).toBeGreaterThanOrEqual(0);
        expect(port).toBeLessThan(65_536);
      },
    ),
  );
});
