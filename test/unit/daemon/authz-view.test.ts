import { describe, expect, it } from 'vitest';
import type { AuthzQuestion } from '../../../src/admin/api.ts';
import { authzAnswer } from '../../../src/daemon/supervisor/authz-view.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { PolicySet } from '../../../src/model/policy.ts';
import type { InstanceId, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';

function service(name: string, of: Partial<Service>): Service {
  return {
    ...{ name: name as ServiceName, protocol: 'http', mode: 'permissive', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [] },
    instances: [
      {
        ...{ id: '1' as InstanceId, address: parseEndpoint('10.0.0.1:8080')!, zone: 'z', labels: {} },
        ...{ weight: 100, draining: false },
      },
    ],
    ...of,
  };
}

const current: PolicySet = {
  version: 3,
  common: {},
  services: {
    orders: {
      hops: 'two',
      access: {
        otherwise: 'deny',
        shadow: false,
        rules: [
          { name: 'admin', action: 'deny', callers: ['*'], paths: [{ kind: 'prefix', value: '/admin' }] },
          { name: 'front', action: 'allow', callers: ['unit:front', 'service:shop'], ports: [8080] },
        ],
      },
    },
    shadowed: { access: { otherwise: 'deny', shadow: true, rules: [] } },
  },
};
const view = {
  node: 'web1' as NodeName,
  snapshot: applyDelta(emptySnapshot, {
    ...{ base: 0, removedServices: [], nodes: [], removedNodes: [] },
    services: [service('orders', {}), service('shadowed', { protocol: 'tcp', mode: 'strict' })],
  }),
  policies: { current, origins: { orders: { access: 'p.yaml:7' } } },
};
const ask = (question: Partial<AuthzQuestion>) =>
  authzAnswer({ caller: 'unit:front', service: 'orders', ...question }, view);

describe('authzAnswer', () => {
  it('decides about a request, with rule and origin, and says what else matters', () => {
    expect(ask({ method: 'GET', path: '/public' })).toEqual({
      ...{ service: 'orders', program: 'unit:front.service', node: 'web1' },
      ...{ decision: 'allow', rule: 'front', origin: 'p.yaml:7', reason: 'rule front allows it' },
      notes: [
        'orders is permissive: who connects past the agents is asked by nobody',
        'hops: two, so its callers on other hosts do so',
      ],
    });
    expect(ask({ path: '/public/%2e%2e/admin' })).toMatchObject({ decision: 'deny', rule: 'admin' });
    expect(ask({ caller: 'unknown', path: '/', as: 'shop', node: 'web2' })).toMatchObject({
      ...{ decision: 'allow', callerService: 'shop', node: 'web2' },
    });
    expect(ask({ caller: 'node:web2', path: '/' })).toMatchObject({ decision: 'deny', node: 'web2' });
  });

  it('says when it depends on the request', () => {
    expect(ask({})).toMatchObject({ decision: 'requests' });
  });

  it('takes the port of the instances, or the one that was said', () => {
    expect(ask({ path: '/', port: 9 })).toMatchObject({ decision: 'deny' });
  });

  it('tells shadow, and services without rules or registry', () => {
    const shadowed = ask({ service: 'shadowed' });
    expect(shadowed).toMatchObject({ decision: 'shadow-deny', notes: [] });
    expect(shadowed.reason).toMatch(/^in shadow, and let through: no access rule of shadowed/);
    expect(ask({ service: 'nobody' })).toEqual({
      ...{ service: 'nobody', program: 'unit:front.service', node: 'web1', decision: 'allow' },
      ...{ reason: 'nobody has no access rules', notes: ['no registry knows nobody'] },
    });
  });

  it.each([
    [{ caller: 'front' }, /unit:NAME/],
    [{ caller: 'unit:*' }, /unit:NAME/],
    [{ service: 'No Service' }, /service name/],
    [{ node: 'no node' }, /node/],
    [{ as: '*' }, /service name/],
    // As agents refuse them, whatever rules say.
    [{ method: 'delete' }, /not a method/],
    [{ path: 'admin' }, /not a path/],
    [{ path: '/a b' }, /not a path/],
  ])('refuses %j', (question, why) => expect(() => ask(question)).toThrow(why));
});
