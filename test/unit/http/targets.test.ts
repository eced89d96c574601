import { describe, expect, it } from 'vitest';
import { ExplicitTargets } from '../../../src/http/explicit-targets.ts';
import { hostOf, OneTarget, outsideAim, SharedTarget } from '../../../src/http/targets.ts';
import type { RequestHead } from '../../../src/http1/request-head.ts';
import { type OriginalDestination, parseEndpoint } from '../../../src/model/address.ts';
import type { Service, ServiceName } from '../../../src/model/service.ts';
import type { OutboundRoute } from '../../../src/proxy/outbound-dependencies.ts';

function service(name: string, protocol: Service['protocol'] = 'http'): Service {
  return {
    ...{ name: name as ServiceName, protocol, mode: 'permissive', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [] },
  };
}

const head = (authority: string, form: RequestHead['form'] = 'origin') =>
  ({ authority, form, scheme: form === 'absolute' ? 'http' : undefined }) as RequestHead;
const at = (text: string) => parseEndpoint(text) as OriginalDestination;

describe('a connection to one service', () => {
  it('goes to what it is in the newest catalogue, and is outdated when it is something else', () => {
    const [before, after] = [service('web'), service('web')];
    let now: Service | undefined = before;
    const targets = new OneTarget({ service: before, instance: undefined }, () =>
      now === undefined ? undefined : { service: now, instance: undefined },
    );
    now = after;
    expect(targets.of().target.service).toBe(after);
    expect(targets.outdated).toBe(false);
    now = undefined;
    expect(targets.of().target.service).toBe(after);
    expect(targets.outdated).toBe(true);
  });
});

describe('a connection to an address that services share', () => {
  const [a, b] = [service('a'), service('b', 'tcp')];
  let route: OutboundRoute = { kind: 'shared', services: [a, b], strict: false };
  const make = () =>
    new SharedTarget(at('10.0.0.9:80'), {
      route: () => route,
      named: (services, host) => services.find(({ name }) => name === host),
    });

  it('goes where Host says, whatever port that has', () => {
    const targets = make();
    expect(targets.of(head('a:81'))).toMatchObject({ target: { service: a }, outside: false });
    expect(targets.of(head('b'))).toMatchObject({ target: { service: b }, outside: false });
    expect(targets.outdated).toBe(false);
  });

  it('goes on to the address with other names and with none', () => {
    for (const name of ['c', '', '10.0.0.9']) {
      expect(make().of(head(name))).toMatchObject({
        outside: true,
        target: { service: { name: '10.0.0.9:80', instances: [{ address: at('10.0.0.9:80') }] } },
      });
    }
  });

  it('follows what becomes of the address, and ends where that is no HTTP any more', () => {
    const cases: readonly (readonly [OutboundRoute, object, boolean])[] = [
      [{ kind: 'service', service: a }, { target: { service: a } }, false],
      [{ kind: 'service', service: b }, { target: { service: b } }, true],
      [{ kind: 'passthrough' }, { outside: true }, true],
      [{ kind: 'refuse', reason: 'loop' }, { kind: 'refused', status: 503, reason: 'loop' }, true],
      [{ kind: 'shared', services: [a, b], strict: true }, { reason: 'configuration' }, false],
    ];
    for (const [now, aim, outdated] of cases) {
      const targets = make();
      route = now;
      expect(targets.of(head('c'))).toMatchObject(aim);
      expect(targets.outdated).toBe(outdated);
    }
  });
});

describe('a connection to the explicit proxy', () => {
  const targets = new ExplicitTargets(false, {
    find: (host, port, usual) => {
      const endpoint = parseEndpoint(`${host.includes(':') ? `[${host}]` : host}:${port ?? usual}`);
      return endpoint === undefined ? { kind: 'unknown', host } : { kind: 'address', endpoint };
    },
    resolve: async () => Promise.reject(new TypeError('nothing that was meant')),
    forbidden: ({ ip }, local) => (ip === '::1' && !local ? 'not for you' : undefined),
  });

  it('goes to port 80 where none is named, and asks whether this caller may', () => {
    expect(targets.of(head('10.0.0.1', 'absolute'))).toMatchObject({
      target: { service: { name: '10.0.0.1:80' } },
    });
    expect(targets.of(head('[::1]:8080', 'absolute'))).toMatchObject({
      ...{ kind: 'refused', status: 403, reason: 'denied', detail: '[::1]:8080: not for you' },
    });
  });

  it('never rejects', async () => {
    expect(await targets.of(head('example.com', 'absolute'))).toMatchObject({
      ...{ kind: 'refused', status: 503, reason: 'no-service' },
    });
  });
});

it('a place outside has a bounded number of addresses', () => {
  const many = Array.from({ length: 50 }, (_, i) => at(`10.0.0.${i}:80`));
  expect(outsideAim('example.com:80', many).target.service.instances).toHaveLength(8);
});

it.each([
  ['web', 'web', undefined],
  ['web:80', 'web', 80],
  ['[::1]', '::1', undefined],
  ['[::1]:8080', '::1', 8080],
  ['', '', undefined],
])('%s is a host and a port', (text, host, port) => {
  expect(hostOf(text)).toEqual({ host, port });
});
