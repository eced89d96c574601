import { describe, expect, it } from 'vitest';
import { AccessControl } from '../../../src/access/access-control.ts';
import { AccessRules } from '../../../src/access/rules.ts';
import type { Access, AccessRule, ServicePolicy } from '../../../src/model/policy.ts';
import type { Service, ServiceName } from '../../../src/model/service.ts';
import { callerView } from '../policy/match/sample-request.ts';

const allow = (name: string, of: Partial<AccessRule>): AccessRule => ({
  ...{ name, action: 'allow', callers: ['*'] },
  ...of,
});
const deny = (name: string, of: Partial<AccessRule>): AccessRule => ({
  ...allow(name, of),
  action: 'deny',
});
const access = (rules: readonly AccessRule[], of: Partial<Access> = {}): Access => ({
  ...{ rules, otherwise: 'deny', shadow: false },
  ...of,
});
const front = callerView();
const back = callerView({ program: 'unit:back.service', node: 'web2' });

describe('AccessRules, of connections', () => {
  it('lets the first rule that holds decide, else the rest', () => {
    const rules = new AccessRules(
      access([
        deny('not-web2', { callers: ['node:web2'] }),
        allow('units', { callers: ['unit:front', 'unit:back'] }),
      ]),
    );
    expect(rules.connection(front, 80, true)).toEqual({ action: 'allow', rule: 'units' });
    expect(rules.connection(back, 80, true)).toEqual({ action: 'deny', rule: 'not-web2' });
    expect(rules.connection(callerView({ program: 'unknown' }), 80, true)).toEqual({
      action: 'deny',
      rule: undefined,
    });
  });

  it('asks for ports; one that is not known is denied and not allowed', () => {
    const allows = new AccessRules(access([allow('web', { ports: [80, 443] })]));
    const denies = new AccessRules(access([deny('admin', { ports: [9000] })], { otherwise: 'allow' }));
    const actions = (rules: AccessRules) =>
      [80, 9000, undefined].map((port) => (rules.connection(front, port, true) as { action: string }).action);
    expect(actions(allows)).toEqual(['allow', 'deny', 'deny']);
    expect(actions(denies)).toEqual(['allow', 'deny', 'deny']);
  });

  it('asks about each request where a rule that may hold speaks of them', () => {
    const rules = new AccessRules(
      access([allow('front', { callers: ['unit:front'] }), allow('read', { methods: ['GET'] })]),
    );
    expect(rules.connection(front, 80, false)).toEqual({ action: 'allow', rule: 'front' });
    expect(rules.connection(back, 80, false)).toBe('requests');
  });

  it('is closed where nobody reads the requests that rules speak of', () => {
    const allows = new AccessRules(access([allow('read', { methods: ['GET'] })]));
    const denies = new AccessRules(
      access([deny('admin', { paths: [{ kind: 'prefix', value: '/admin' }] })], { otherwise: 'allow' }),
    );
    expect(allows.connection(front, 80, true)).toEqual({ action: 'deny', rule: undefined });
    expect(denies.connection(front, 80, true)).toEqual({ action: 'deny', rule: 'admin' });
  });

  it('only reports in shadow', () => {
    const rules = new AccessRules(access([deny('no', { callers: ['unit:back'] })], { shadow: true }));
    expect(rules.connection(back, 80, true)).toEqual({ action: 'shadow-deny', rule: 'no' });
    expect(rules.connection(front, 80, true)).toEqual({ action: 'shadow-deny', rule: undefined });
  });
});

describe('AccessRules, of requests', () => {
  const admin = [{ kind: 'prefix', value: '/admin' }] as const;
  const request = (rules: AccessRules, path: string, method = 'GET', caller = front) =>
    rules.request(caller, 80, { method, path }).action;

  it('asks for method and path, without the query', () => {
    const rules = new AccessRules(access([allow('read', { methods: ['GET'], paths: admin })]));
    expect(request(rules, '/admin/x?y=/z')).toBe('allow');
    expect(request(rules, '/admin', 'HEAD')).toBe('deny');
    expect(request(rules, '/x?/admin')).toBe('deny');
  });

  it.each([
    '/admin',
    '/admin/users',
    '/admin?x',
    '/public/../admin',
    '/public/%2e%2e/admin',
    '//admin',
    '/./admin',
    '/%61dmin',
    '/admin%2fusers',
    '/public%2f..%2fadmin',
    '/public/..;/admin',
    '/admin;x=1/users',
    '/public\\..\\admin',
    '/public/%252e%252e/admin',
    '/admin//../public',
    '/admin/../public',
    '/admin%00',
    '/admin%',
  ])('denies %s where /admin is denied', (path) => {
    const rules = new AccessRules(access([deny('admin', { paths: admin })], { otherwise: 'allow' }));
    expect(request(rules, path)).toBe('deny');
  });

  it.each([
    '/public/../admin',
    '/public/%2e%2e/admin',
    '/public/..%2fadmin',
    '/public/..;/admin',
    '/public//../admin',
    '/public\\..\\..\\admin',
    '/public/%252e%252e/admin',
    '/public%00/../admin',
    '/%2e/admin',
  ])('does not allow %s where /public is allowed', (path) => {
    const rules = new AccessRules(
      access([allow('public', { paths: [{ kind: 'prefix', value: '/public' }] })]),
    );
    expect(request(rules, path)).toBe('deny');
    expect(request(rules, '/public/x%20y;v=1/z%2Fw')).toBe('allow');
  });

  it('goes on to the next rule, in order', () => {
    const rules = new AccessRules(
      access([
        allow('ops', { callers: ['unit:front'], paths: admin }),
        deny('admin', { paths: admin }),
        allow('all', {}),
      ]),
    );
    expect(request(rules, '/admin')).toBe('allow');
    expect(request(rules, '/admin', 'GET', back)).toBe('deny');
    expect(request(rules, '/x', 'GET', back)).toBe('allow');
  });
});

describe('AccessControl', () => {
  const service = (protocol: Service['protocol']) => ({ name: 'pay' as ServiceName, protocol }) as Service;

  function control(policy: ServicePolicy) {
    const decided: string[] = [];
    const made = new AccessControl({
      policy: () => policy,
      decided: (name, action) => decided.push(`${name} ${action}`),
    });
    return { control: made, decided };
  }

  it('has nothing to say of a service without rules', () => {
    const { control: none, decided } = control({});
    expect(none.connection(service('tcp'), 80, front)).toBeUndefined();
    expect(none.request('pay' as ServiceName, 80, front, { method: 'GET', path: '/' })).toBeUndefined();
    expect(decided).toEqual([]);
  });

  it('counts what it decides, and names the rule', () => {
    const { control: made, decided } = control({
      access: access([deny('no-front', { callers: ['unit:front'] })]),
    });
    expect(made.connection(service('tcp'), 80, front)).toMatchObject({
      denial: 'access rule no-front of pay does not let unit:front.service on web1 call pay',
    });
    expect(
      made.connection(service('tcp'), 80, callerView({ program: 'unknown', service: 'shop' })),
    ).toMatchObject({
      denial: 'no access rule of pay lets an unknown program on web1 as shop call pay',
    });
    expect(decided).toEqual(['pay deny', 'pay deny']);
    made.preview(service('tcp'), 80, front);
    expect(decided).toHaveLength(2);
  });

  it.each([
    ['http', 'requests'],
    ['auto', 'requests'],
    ['tcp', 'deny'],
    ['tls', 'deny'],
    ['http2', 'deny'],
  ] as const)('reads requests of protocol %s: %s', (protocol, what) => {
    const { control: made } = control({ access: access([deny('x', { methods: ['PUT'] })]) });
    const verdict = made.connection(service(protocol), 80, front);
    expect(typeof verdict === 'object' ? verdict.action : verdict).toBe(what);
  });
});
