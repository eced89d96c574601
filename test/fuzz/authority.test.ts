import fc from 'fast-check';
import { expect, test } from 'vitest';
import { hostOf } from '../../src/http/targets.ts';
import { isAuthority } from '../../src/http1/authority.ts';
import type { ServiceName } from '../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../src/model/snapshot.ts';
import { NamedRoutes } from '../../src/route/by-name.ts';

const own = { isOwnAddress: () => false, ports: new Set<number>() };
const snapshot = applyDelta(emptySnapshot, {
  ...{ base: 0, removedServices: [], nodes: [], removedNodes: [] },
  services: [
    {
      ...{ name: 'web' as ServiceName, protocol: 'http', mode: 'strict', interchangeable: false },
      ...{ balance: 'round-robin', hosts: ['www.example.com'], addresses: [], instances: [], ports: [80] },
    },
  ],
});
const routes = new NamedRoutes(own, 'mesh');

/** What callers write, and what they might. */
const authorities = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 300 }),
  fc.string({ unit: fc.constantFrom(...'[]:.0123456789abcfwex-_~@%/'), maxLength: 40 }),
  fc.tuple(fc.oneof(fc.domain(), fc.ipV4()), fc.nat(70_000)).map(([host, port]) => `${host}:${port}`),
  fc.ipV6().map((ip) => `[${ip}]:80`),
);

test('an authority that is valid is taken apart as a URL is, and means something', () => {
  let valid = 0;
  fc.assert(
    fc.property(authorities, (text) => {
      const { host, port } = hostOf(text);
      expect(['service', 'instance', 'address', 'unknown', 'refuse']).toContain(
        routes.find(snapshot, host, port, 80).kind,
      );
      if (!isAuthority(text, 0, text.length, false)) return;
      valid++;
      expect(host).not.toBe('');
      expect(`${text.startsWith('[') ? `[${host}]` : host}${port === undefined ? '' : `:${port}`}`).toBe(
        text.replace(/:0+(?=\d+$)/, ':'),
      );
      const url = URL.canParse(`http://${text}/`) ? new URL(`http://${text}/`) : undefined;
      // URL leaves the usual port out, and writes addresses in one spelling.
      if (url !== undefined) expect(Number(url.port || '80')).toBe(port ?? 80);
    }),
    { numRuns: 3000 },
  );
  expect(valid).toBeGreaterThan(300);
});

test('no spelling of a name reaches a service that another one does not', () => {
  const letters = fc.array(fc.boolean(), { minLength: 20, maxLength: 20 });
  fc.assert(
    fc.property(
      fc.constantFrom('web', 'web.mesh', 'www.example.com'),
      letters,
      fc.boolean(),
      (name, cases, dot) => {
        const spelt = [...name].map((letter, i) => (cases[i] === true ? letter.toUpperCase() : letter));
        const route = routes.find(snapshot, spelt.join('') + (dot ? '.' : ''), 80, 80);
        expect(route).toMatchObject({ kind: 'service', service: { name: 'web' } });
      },
    ),
    { numRuns: 300 },
  );
});
