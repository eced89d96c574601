import { describe, expect, it } from 'vitest';
import { policy, problems } from './files.ts';

describe('routes', () => {
  it('take short forms and are complete afterwards', () => {
    const { routes } = policy(`routes:
  - name: canary
    match: {methods: GET, path: {prefix: /x}, headers: {X-User: alice}, callers: service:shop}
    percent: 2.5%
    sticky: caller
    to: [{subset: {version: v2}, weight: 10}, {}]
  - {name: rest, subset: {version: v1}, fault: {delay: 1s, abort: {status: 503, percent: 1}}}
  - {name: old, match: [{path: /old}, {query: {v: {absent: true}}}], redirect: {path: /new}}
  - {name: away, rewrite: {path: /, host: 'other:81'}, sticky: {cookie: Sid}, timeouts: {request: 0s}, retries: 0}
`);
    expect(routes).toEqual([
      {
        name: 'canary',
        matches: [
          {
            methods: ['GET'],
            path: { kind: 'prefix', value: '/x' },
            headers: [{ name: 'x-user', match: { kind: 'exact', value: 'alice' } }],
            callers: ['service:shop'],
          },
        ],
        percent: 2.5,
        sticky: { kind: 'caller' },
        to: [
          { subset: { version: 'v2' }, weight: 10 },
          { subset: {}, weight: 1 },
        ],
      },
      {
        name: 'rest',
        matches: [],
        percent: 100,
        to: [{ subset: { version: 'v1' }, weight: 1 }],
        fault: { delay: { duration: 1000, percent: 100 }, abort: { status: 503, percent: 1 } },
      },
      {
        name: 'old',
        matches: [
          { path: { kind: 'exact', value: '/old' } },
          { query: [{ name: 'v', match: { kind: 'absent' } }] },
        ],
        percent: 100,
        redirect: { status: 302, path: '/new' },
      },
      {
        name: 'away',
        matches: [],
        percent: 100,
        sticky: { kind: 'cookie', name: 'Sid' },
        rewrite: { path: '/', host: 'other:81' },
        timeouts: { request: 0 },
        retries: expect.objectContaining({ attempts: 0 }),
      },
    ]);
  });

  it.each([
    ['{}', '2:9: routes: found a map, expected list of map'],
    ['[]', '2:9: routes: found 0 entries, expected at least 1 entries'],
    ['[{}]', '2:10: routes[0].name: found nothing, expected name'],
    ['[{name: a b}]', '2:17: routes[0].name: found text "a b", expected a name: up to 63 letters'],
    ['[{name: a}, {name: a}]', '2:28: routes[1].name: found text "a", expected each name once'],
    ['[{name: a, macth: {}}]', '2:20: routes[0].macth: found a key that is not known'],
    ['[{name: a, match: {}}]', '2:27: routes[0].match: found a map, expected at least one condition'],
    [
      '[{name: a, match: {path: x}}]',
      '2:34: routes[0].match.path: found text "x", expected a path that begins with /',
    ],
    ['[{name: a, match: {path: /x/*}}]', 'without query and without *'],
    [
      '[{name: a, match: {path: {prefix: /x, exact: /x}}}]',
      'expected exactly one of exact, prefix and regex',
    ],
    [
      '[{name: a, match: {path: {regex: "(?=x)"}}}]',
      '2:42: routes[0].match.path.regex: found text "(?=x)", expected a regular expression of RE2; this one has invalid or unsupported',
    ],
    ['[{name: a, match: {path: {regex: "(a{100}){100}"}}}]', 'expected a regular expression of RE2'],
    [
      '[{name: a, match: {headers: {X-A: b, x-a: c}}}]',
      '2:51: routes[0].match.headers.x-a: found text "c", expected each name once',
    ],
    [
      '[{name: a, match: {headers: {"a b": c}}}]',
      '2:38: routes[0].match.headers.a b: found text "a b", expected the name of a header field',
    ],
    [
      '[{name: a, match: {headers: {a: {present: false}}}}]',
      'routes[0].match.headers.a.present: found false, expected true',
    ],
    ['[{name: a, match: {headers: {a: 1}}}]', 'headers.a: found number 1, expected text, or a map with'],
    [
      '[{name: a, match: {headers: {__proto__: x}}}]',
      '2:38: routes[0].match.headers.__proto__: found a key that is not allowed',
    ],
    ['[{name: a, match: {methods: get}}]', 'found text "get", expected a method in upper case, such as GET'],
    ['[{name: a, match: {callers: shop}}]', 'expected service:NAME, unit:NAME, user:NAME'],
    [
      '[{name: a, percent: 101}]',
      '2:29: routes[0].percent: found number 101, expected a share from 0 to 100',
    ],
    ['[{name: a, percent: -1%}]', 'found text "-1%", expected a share from 0 to 100'],
    ['[{name: a, sticky: {header: x, cookie: y}}]', 'expected exactly one of header, cookie and caller'],
    [
      '[{name: a, to: [{weight: 0}]}]',
      '2:24: routes[0].to: found a list, expected one weight at least that is not 0',
    ],
    [
      '[{name: a, to: [{}], subset: {}}]',
      '2:38: routes[0].subset: found a map, expected `to` or `subset`, not both',
    ],
    ['[{name: a, rewrite: {}}]', 'expected path or host'],
    ['[{name: a, rewrite: {path: "/a b"}}]', 'expected a path that begins with /, without query'],
    ['[{name: a, rewrite: {host: "a b"}}]', 'expected a host name or address'],
    ['[{name: a, redirect: {status: 301}}]', 'without one of them it leads back to itself'],
    [
      '[{name: a, redirect: {status: 200, path: /}}]',
      'routes[0].redirect.status: found number 200, expected 301, 302',
    ],
    [
      '[{name: a, redirect: {path: /}, rewrite: {path: /x}}]',
      'routes[0].rewrite: found a map, expected nothing of it beside `redirect`',
    ],
    [
      '[{name: a, redirect: {path: /}, subset: {a: b}}]',
      'routes[0].subset: found a map, expected nothing of it beside `redirect`',
    ],
    ['[{name: a, fault: {}}]', 'expected delay or abort'],
    ['[{name: a, fault: {abort: 200}}]', 'routes[0].fault.abort: found number 200, expected integer 400–599'],
  ])('%s is refused', (routes, problem) => {
    const found = problems(`service: web\nroutes: ${routes}`);
    expect(found.join('\n')).toContain(problem);
    expect(found.every((one) => /^2:\d+: /.test(one))).toBe(true);
  });
});

describe('resilience', () => {
  it('has the defaults that are documented', () => {
    expect(
      policy('retries:\ncircuitBreaker:\noutlier: {successRate: , latency: {}}\nprobe:\nbalance:\n'),
    ).toEqual({
      retries: {
        on: ['connect-failure', 'reset'],
        statuses: [],
        headers: [],
        attempts: 1,
        methods: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
        backoff: { base: 25, max: 250 },
        budget: { percent: 20, perSecond: 10 },
        replayBuffer: 65_536,
      },
      circuitBreaker: { connections: 1024, pending: 1024, requests: 1024, retries: 3 },
      outlier: {
        consecutiveErrors: 5,
        interval: 10_000,
        successRate: { minimumInstances: 5, minimumRequests: 100, factor: 1.9 },
        latency: { minimumInstances: 3, minimumRequests: 100, factor: 3, atLeast: 50 },
        baseEjection: 30_000,
        maxEjection: 300_000,
        maxEjectedPercent: 50,
        panicThreshold: 50,
      },
      probe: { interval: 10_000, timeout: 1000, rise: 2, fall: 3 },
      balance: { boundedLoad: 125, slowStart: 0, overflowBelow: 70, minimumNear: 1 },
    });
  });

  it('asks again for what has a setting', () => {
    expect(
      policy('retries: {perTryTimeout: 1s, statuses: 503, headers: {x-retry: "yes"}}').retries,
    ).toMatchObject({
      on: ['connect-failure', 'reset', 'timeout', 'status', 'header'],
      statuses: [503],
      headers: [{ name: 'x-retry', match: { kind: 'exact', value: 'yes' } }],
    });
    expect(policy('retries: {on: status}').retries).toMatchObject({
      on: ['status'],
      statuses: [502, 503, 504],
    });
    expect(policy('retries: 3').retries).toMatchObject({ attempts: 3 });
  });

  it('bounds nothing where `off` or `0s` says so', () => {
    expect(policy('circuitBreaker: {connections: off, retries: 0}\ntimeouts: {idle: 0s}')).toEqual({
      circuitBreaker: { pending: 1024, requests: 1024, retries: 0 },
      timeouts: { idle: 0 },
    });
  });

  it('reads probes and balancing', () => {
    expect(
      policy('probe: {http: {path: /up, statuses: [200-299, 404]}, interval: 2s}\nhops: two'),
    ).toMatchObject({
      probe: {
        http: {
          path: '/up',
          statuses: [
            { from: 200, to: 299 },
            { from: 404, to: 404 },
          ],
        },
      },
      hops: 'two',
    });
    expect(policy('probe: {http: /up}').probe?.http).toEqual({
      path: '/up',
      statuses: [{ from: 200, to: 299 }],
    });
    expect(policy('balance: peak-ewma').balance?.algorithm).toBe('peak-ewma');
    expect(policy('balance: {algorithm: ring-hash, hash: {header: X-User}}').balance?.hash).toEqual({
      kind: 'header',
      name: 'x-user',
    });
  });

  it.each([
    ['retries: 11', '2:10: retries: found number 11, expected integer 0–10'],
    ['retries: {on: [status, never]}', 'retries.on[1]: found text "never", expected connect-failure, reset'],
    ['retries: {on: reset, statuses: 503}', 'retries.statuses: found number 503, expected status among `on`'],
    ['retries: {on: timeout}', 'expected perTryTimeout beside timeout'],
    ['retries: {on: header}', 'expected headers beside header'],
    ['retries: {backoff: {base: 1s}}', 'retries.backoff.base: found text "1s", expected at most backoff.max'],
    ['retries: {replayBuffer: 1GiB}', 'expected at most 16MiB'],
    ['retries: {budget: {percent: 101}}', 'retries.budget.percent: found number 101, expected integer 0–100'],
    ['timeouts: {}', 'expected at least one of connect, request, idle and stream'],
    ['timeouts: {request: 5}', 'timeouts.request: found number 5, expected duration'],
    ['timeouts: {request: 5 s}', 'expected a duration such as 250ms'],
    [
      'circuitBreaker: {requests: 0}',
      'circuitBreaker.requests: found number 0, expected off or integer 1–1000000',
    ],
    ['outlier: {baseEjection: 10m}', 'outlier.baseEjection: found text "10m", expected at most maxEjection'],
    ['outlier: {maxEjectedPercent: 200}', 'expected integer 0–100'],
    ['probe: {timeout: 20s}', 'probe.timeout: found text "20s", expected at most interval'],
    ['probe: {http: up}', 'probe.http: found text "up", expected a path that begins with /'],
    ['probe: {http: {statuses: 299-200}}', 'expected a range that begins with its lower status'],
    ['balance: random', 'balance: found text "random", expected round-robin, least-connections'],
    ['balance: ring-hash', 'expected a key for ring-hash'],
    ['balance: {hash: caller}', 'expected `algorithm: ring-hash` beside it'],
    ['hops: one', '2:7: hops: found text "one", expected two or three'],
  ])('%s is refused', (section, problem) => {
    expect(problems(`service: web\n${section}`).join('\n')).toContain(problem);
  });
});

describe('limits and access', () => {
  it('take short forms and are complete afterwards', () => {
    const said = policy(`rateLimits:
  - {name: all, rate: 100/s}
  - {name: each, rate: 5/10s, burst: 2, per: {header: X-User}, match: {methods: POST}}
access:
  rules:
    - {allow: 'service:shop', methods: [GET], paths: [/a, {prefix: /b}], ports: 80}
    - {name: nobody, deny: ['*']}
`);
    expect(said.rateLimits).toEqual([
      { name: 'all', per: { kind: 'service' }, count: 100, interval: 1000, burst: 100, matches: [] },
      {
        name: 'each',
        per: { kind: 'header', name: 'x-user' },
        count: 5,
        interval: 10_000,
        burst: 2,
        matches: [{ methods: ['POST'] }],
      },
    ]);
    expect(said.access).toEqual({
      rules: [
        {
          name: 'rule-1',
          action: 'allow',
          callers: ['service:shop'],
          methods: ['GET'],
          paths: [
            { kind: 'exact', value: '/a' },
            { kind: 'prefix', value: '/b' },
          ],
          ports: [80],
        },
        { name: 'nobody', action: 'deny', callers: ['*'] },
      ],
      otherwise: 'deny',
      shadow: false,
    });
  });

  it.each([
    ['rateLimits: [{name: a, rate: 10}]', 'rateLimits[0].rate: found number 10, expected rate such as 100/s'],
    ['rateLimits: [{name: a, rate: 0/s}]', 'expected a rate such as 100/s, 10/m or 5/10s'],
    [
      'rateLimits: [{name: a, rate: 1/s, per: node}]',
      'found text "node", expected service, caller, or a map with header',
    ],
    ['rateLimits: [{rate: 1/s}]', 'rateLimits[0].name: found nothing, expected name'],
    ['access: {}', '2:9: access.otherwise: found nothing, expected allow or deny'],
    ['access:', '2:8: access: found an empty value, expected map'],
    ['access: {rules: [{deny: "*"}]}', 'expected allow or deny: no rule allows anything'],
    ['access: {rules: [{}]}', '2:18: access.rules[0]: found a map, expected either allow or deny'],
    ['access: {rules: [{allow: "*", deny: "*"}]}', 'expected either allow or deny'],
    ['access: {rules: [{allow: "user:"}]}', 'has no name behind user:'],
    [
      'access: {rules: [{allow: "*", ports: 0}]}',
      'access.rules[0].ports: found number 0, expected integer 1–65535',
    ],
    [
      'access: {rules: [{allow: "*"}, {allow: "*", name: rule-1}]}',
      'access.rules[1].name: found text "rule-1", expected each name once',
    ],
    ['access: {shadow: yes, otherwise: deny}', 'access.shadow: found text "yes", expected'],
  ])('%s is refused', (section, problem) => {
    expect(problems(`service: web\n${section}`).join('\n')).toContain(problem);
  });
});
