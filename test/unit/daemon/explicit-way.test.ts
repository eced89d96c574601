import { describe, expect, it } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';

import { ownPorts, wantedListeners } from '../../../src/daemon/succession/listeners.ts';
import { ExplicitWay } from '../../../src/daemon/worker/explicit-way.ts';
import { OwnListenerSet } from '../../../src/daemon/worker/own-listeners.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { NodeName } from '../../../src/model/service.ts';
import { emptySnapshot } from '../../../src/model/snapshot.ts';

const configOf = (input: object) => configSchema.parse({ node: { name: 'a', zone: 'z' }, ...input });

describe('where callers of the proxy may go', () => {
  let config = configOf({});
  const way = new ExplicitWay(
    () => ({
      ...{ node: 'a' as NodeName, relay: false, credentials: undefined },
      exempt: { users: [], units: [] },
      config,
    }),
    () => emptySnapshot,
    new OwnListenerSet([15003]),
  );
  const forbidden = (address: string, local = true) => way.forbidden(parseEndpoint(address)!, local);

  it('is not to itself, whatever it is called', () => {
    for (const host of ['127.0.0.1', '::1', '::ffff:127.0.0.1', '127.1.2.3']) {
      expect(way.find(host, 15003, 80)).toMatchObject({ kind: 'refuse', reason: 'loop' });
    }
    for (const address of ['0.0.0.0:15003', '0.1.2.3:80', '[::]:15003']) {
      expect(forbidden(address)).toBe('not the address of a host');
    }
  });

  it('is nowhere where no host is', () => {
    for (const address of ['224.0.0.1:80', '240.1.2.3:80', '255.255.255.255:80', '[ff02::1]:80'])
      expect(forbidden(address)).toBeDefined();
    for (const address of ['223.255.255.255:80', '10.0.0.1:443', '[fd00::1]:80'])
      expect(forbidden(address)).toBeUndefined();
  });

  it('is loopback for those only who are there themselves', () => {
    for (const address of ['127.0.0.1:80', '[::1]:80']) {
      expect(forbidden(address, true)).toBeUndefined();
      expect(forbidden(address, false)).toBeDefined();
    }
  });

  it('is not what capture.protect names, as it says now', () => {
    expect(forbidden('10.0.0.1:22')).toBe('capture.protect names it');
    expect(forbidden('169.254.169.254:80')).toBeDefined();
    config = configOf({ capture: { protect: ['10.9.0.0/16'] } });
    expect(forbidden('10.0.0.1:22')).toBeUndefined();
    expect(forbidden('10.9.1.1:80')).toBeDefined();
    config = configOf({ capture: { protect: ['nonsense'] } });
    expect(forbidden('10.0.0.1:80')).toBeDefined();
  });
});

describe('the listeners of the proxy', () => {
  const addresses = (proxy: object) =>
    wantedListeners(configOf({ proxy, capture: { ipv6: 'off' } }))
      .filter(({ kind }) => kind === 'proxy')
      .map(({ ip, port }) => `${ip} ${port}`);

  it('are none unless it is enabled, and on loopback unless more is said', () => {
    expect(addresses({})).toEqual([]);
    expect(addresses({ enabled: true })).toEqual(['127.0.0.1 15003']);
    expect(addresses({ enabled: true, port: 3128, reach: 'bridges' })).toEqual(['127.0.0.1 3128']);
    expect(addresses({ enabled: true, reach: 'everybody' })).toContain('0.0.0.0 15003');
  });

  it('are there without interception, too', () => {
    const kinds = wantedListeners(configOf({ proxy: { enabled: true }, capture: { mode: 'off' } }));
    expect(kinds.map(({ kind }) => kind)).toContain('proxy');
  });

  it("have a port of the agent's own, which no rule redirects", () => {
    expect(ownPorts(configOf({ proxy: { enabled: true } }))).toContain(15003);
    expect(ownPorts(configOf({}))).not.toContain(15003);
  });
});
