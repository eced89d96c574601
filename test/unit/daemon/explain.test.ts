import { describe, expect, test } from 'vitest';
import type { ExplainQuestion } from '../../../src/admin/api.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { type ExplainView, explain } from '../../../src/daemon/supervisor/explain/explain.ts';
import { parseEndpoint } from '../../../src/model/address.ts';
import type { PolicySet } from '../../../src/model/policy.ts';
import type { Instance, MeshNode, NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot } from '../../../src/model/snapshot.ts';

const at = (text: string) => parseEndpoint(text)!;

function instance(id: string, fields: Partial<Instance> = {}): Instance {
  return {
    ...{ id: id as Instance['id'], address: at(`10.0.0.${id.length}:80`), node: 'b' as NodeName },
    ...{ zone: 'dc1', labels: {}, weight: 100, draining: false },
    ...fields,
  };
}

function service(name: string, fields: Partial<Service> = {}): Service {
  return {
    ...{ name: name as ServiceName, protocol: 'http', mode: 'permissive', interchangeable: false },
    ...{ balance: 'round-robin', hosts: [], addresses: [], instances: [] },
    ...fields,
  };
}

const snapshot = applyDelta(emptySnapshot, {
  ...{ base: 0, removedServices: [], removedNodes: [] },
  services: [
    service('shop', {
      hosts: ['shop.example'],
      instances: [
        instance('a', { labels: { version: 'v1' } }),
        instance('bb', { labels: { version: 'v2' } }),
        instance('ccc', { labels: { version: 'v2' }, draining: true }),
        instance('dddd', { labels: { version: 'v2' }, zone: 'dc9' }),
        instance('eeeee', { labels: { version: 'v2' } }),
      ],
    }),
    service('db', {
      protocol: 'tcp',
      mode: 'strict',
      addresses: [at('10.9.9.9:5432')],
      instances: [instance('ffffff')],
    }),
  ],
  nodes: [{ name: 'b', zone: 'dc1', tunnel: at('10.0.0.2:1') } as MeshNode],
});

const policies: PolicySet = {
  version: 3,
  common: {},
  services: {
    shop: {
      routes: [
        {
          name: 'canary',
          matches: [{ headers: [{ name: 'x-user', match: { kind: 'exact', value: 'eve' } }] }],
          percent: 100,
          to: [{ subset: { version: 'v2' }, weight: 1 }],
        },
        {
          name: 'moved',
          matches: [{ path: { kind: 'prefix', value: '/old' } }],
          percent: 100,
          redirect: { status: 308, path: '/new' },
        },
        { name: 'some', matches: [], percent: 10, rewrite: { path: '/x' } },
      ],
      access: {
        rules: [{ name: 'buyers', action: 'allow', callers: ['unit:checkout.service'] }],
        ...{ otherwise: 'deny', shadow: false },
      },
    },
  },
};

const view: ExplainView = {
  node: 'me' as NodeName,
  config: configSchema.parse({ node: { zone: 'dc1' } }),
  ...{ snapshot, policies, origins: { shop: { routes: '/etc/p/shop.yaml:3' } }, exempt: [] },
  callers: { users: ['backup'], units: [] },
  interception: { state: 'in force', suspensions: [] },
  outages: [],
  instancesOf: async () => [
    {
      service: 'shop',
      id: 'eeeee',
      state: 'ejected',
      reason: 'consecutive',
      failures: 5,
      active: 0,
      share: 1,
    },
    { service: 'shop', id: 'bb', state: 'healthy', failures: 0, active: 2, latencyMs: 4, share: 1 },
  ],
};

const ask = (question: ExplainQuestion) => explain(question, view);
const step = async (question: ExplainQuestion, title: string) =>
  (await ask(question)).steps.find((one) => one.title === title);

describe('explain', () => {
  test('a request: its route, and why each instance may be picked or not', async () => {
    const asked = { to: 'http://shop.example/cart', headers: 'X-User: eve', from: 'checkout' };
    const answer = await ask(asked);
    expect(answer.outcome).toBe('service');
    expect(await step(asked, 'route')).toMatchObject({
      text: 'by route canary',
      details: [
        'canary: matches',
        'moved: does not match',
        'some: would match, for 10 % of such requests; one before it is taken',
      ],
    });
    expect(answer.instances.map(({ id, candidate, reason }) => [id, candidate, reason])).toEqual([
      ['a', false, 'not in the subset: version is not v2'],
      ['bb', true, 'in this zone'],
      ['ccc', false, 'draining'],
      ['dddd', false, 'in another zone; nearer ones take all'],
      ['eeeee', false, 'ejected (consecutive)'],
    ]);
    expect(answer.instances[1]).toMatchObject({ path: 'tunnel', agent: 'b', active: 2, latencyMs: 4 });
    expect((await step(asked, 'access'))?.text).toContain('allow (by rule buyers)');
    expect((await step(asked, 'service'))?.details).toContain('routes: /etc/p/shop.yaml:3');
  });

  test('callers that may not, and those that are never touched', async () => {
    expect((await step({ to: 'http://shop/', from: 'other' }, 'access'))?.text).toContain(
      'deny (no rule matches)',
    );
    expect((await step({ to: 'shop', from: 'user:backup' }, 'interception'))?.details).toEqual([
      'the allow-list names the caller: it is never touched',
    ]);
  });

  test('the caller, in every way to name one', async () => {
    for (const from of ['checkout', 'checkout.service', 'unit:checkout', 'unit:checkout.service'])
      expect(await ask({ to: 'http://shop/', from }), from).toMatchObject({ outcome: 'service' });
    expect((await step({ to: 'shop', from: 'container:0123456789abcdef' }, 'caller'))?.text).toBe(
      'container:0123456789ab on me',
    );
    expect((await step({ to: 'shop', from: 'service:cart', node: 'x' }, 'caller'))?.text).toBe(
      'a program as service cart on x',
    );
  });

  test('who is denied is refused; not where nobody asks', async () => {
    expect(await ask({ to: 'http://shop/', from: 'other' })).toMatchObject({ outcome: 'refused' });
    const { shop } = policies.services;
    const direct = {
      ...view,
      policies: { ...policies, services: { shop: { ...shop!, hops: 'two' as const } } },
    };
    expect(await explain({ to: 'http://shop/', from: 'other' }, direct)).toMatchObject({
      outcome: 'service',
    });
  });

  test('access rules see the path as it is sent: not tidied up, and rewritten', async () => {
    const rules = (paths: string) => ({
      ...view,
      policies: {
        ...policies,
        services: {
          shop: {
            routes: [
              {
                name: 'r',
                matches: [{ path: { kind: 'exact', value: '/old' } }],
                percent: 100,
                rewrite: { path: '/new' },
              },
            ],
            access: {
              ...{
                rules: [
                  { name: 'no', action: 'deny', callers: ['*'], paths: [{ kind: 'regex', value: paths }] },
                ],
              },
              ...{ otherwise: 'allow', shadow: false },
            },
          },
        },
      } as PolicySet,
    });
    const outcome = async (to: string, paths: string) => (await explain({ to }, rules(paths))).outcome;
    expect(await outcome('http://shop/admin/../x', '^/admin')).toBe('refused');
    expect(await outcome('http://shop/old', '^/new$')).toBe('refused');
    expect(await outcome('http://shop/old', '^/old$')).toBe('service');
  });

  test('what the agent answers by itself', async () => {
    const answer = await ask({ to: 'http://shop/old/x?q=1' });
    expect(answer.outcome).toBe('answered');
    expect(answer.steps.at(-2)).toMatchObject({ text: 'answered with 308 to /new/x?q=1' });
  });

  test('addresses: of a service, of one instance, of nobody', async () => {
    expect(await ask({ to: '10.9.9.9:5432' })).toMatchObject({ outcome: 'service' });
    const one = await ask({ to: '10.0.0.2:80' });
    expect(one.instances.map(({ id }) => id)).toEqual(['bb']);
    expect(await ask({ to: '192.0.2.1:443' })).toMatchObject({ outcome: 'passthrough', instances: [] });
    expect(await ask({ to: 'https://example.com/' })).toMatchObject({ outcome: 'passthrough' });
    expect(await ask({ to: 'shop:81' })).toMatchObject({ outcome: 'refused' });
  });

  test.each([
    [{ to: 'ftp://x/' }, 'ftp:// is not known'],
    [{ to: 'a b' }, 'neither a URL'],
    [{ to: 'shop:99999' }, 'no port'],
    [{ to: 'http://shop/', headers: 'nonsense' }, 'not NAME: VALUE'],
    [{ to: 'http://shop/', headers: 'a: b\r' + 'x' }, 'not NAME: VALUE'],
    [{ to: 'http://shop/', headers: `a:${' '.repeat(8000)}\rx` }, 'not NAME: VALUE'],
    [{ to: 'shop', from: 'pid:7' }, 'not a unit'],
    [{ to: 'shop', from: '*' }, 'not a unit'],
    [{ to: 'shop', service: 'A B' }, 'not a service name'],
    [{ to: 'shop', node: '__proto__' }, 'not the name of a node'],
  ])('%j is no question', async (question, message) => {
    await expect(ask(question)).rejects.toThrow(message);
  });
});
