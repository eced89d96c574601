import type { PolicySection } from './schema/document.ts';

/** A complete document for each section; docs/policies.md shows them, and a test reads them. */
export const examples: Readonly<Record<PolicySection, string>> = {
  routes: `service: orders
routes:
  - name: testers
    match: {headers: {x-tester: {present: true}}}
    subset: {version: v3}
  - name: canary
    match:
      - path: {prefix: /api}
        methods: [GET, HEAD]
      - callers: service:shop
        query: {beta: "1"}
    sticky: {cookie: session}
    to:
      - {subset: {version: v2}, weight: 10}
      - {subset: {version: v1}, weight: 90}
    timeouts: {request: 2s}
    retries: 2
  - name: old-path
    match: {path: {prefix: /v1/orders}}
    rewrite: {path: /orders}
  - name: moved
    match: {path: /help}
    redirect: {status: 301, host: help.example.com, path: /orders}
  - name: trouble
    match: {headers: {x-trouble: {regex: "^(slow|broken)$"}}}
    percent: 50
    fault:
      delay: {duration: 300ms, percent: 20}
      abort: 503
`,
  retries: `service: orders
retries:
  attempts: 2
  perTryTimeout: 1s
  statuses: [502, 503]
  headers: {x-retry-me: {present: true}}
  backoff: {base: 25ms, max: 250ms}
  budget: {percent: 20, perSecond: 10}
  replayBuffer: 64KiB
`,
  timeouts: `services: [orders, stock]
timeouts:
  connect: 500ms
  request: 15s
  idle: 1h
  stream: 5m
`,
  circuitBreaker: `service: orders
circuitBreaker:
  connections: 200
  pending: 50
  requests: 500
  retries: 3
`,
  outlier: `service: orders
outlier:
  consecutiveErrors: 5
  interval: 10s
  successRate: {minimumInstances: 5, minimumRequests: 100, factor: 1.9}
  latency: {factor: 3, atLeast: 50ms}
  baseEjection: 30s
  maxEjection: 5m
  maxEjectedPercent: 50
  panicThreshold: 50
`,
  probe: `service: orders
probe:
  http: {path: /healthz, statuses: [200-299, 401]}
  interval: 5s
  timeout: 1s
  rise: 2
  fall: 3
`,
  balance: `service: orders
balance:
  algorithm: ring-hash
  hash: {header: x-user}
  boundedLoad: 125
  slowStart: 30s
  overflowBelow: 70
  minimumNear: 2
`,
  rateLimits: `service: orders
rateLimits:
  - {name: everybody, rate: 1000/s, burst: 2000}
  - name: writers
    per: caller
    rate: 10/m
    match: {methods: [POST, PUT, DELETE]}
  - {name: tenants, per: {header: x-tenant}, rate: 50/s}
`,
  access: `service: orders
access:
  rules:
    - name: health-checks
      allow: "*"
      methods: GET
      paths: /healthz
    - name: no-admin
      deny: "*"
      paths: {prefix: /admin}
    - name: shop
      allow: [service:shop, "unit:shop-*", user:deploy]
      ports: 8080
  otherwise: deny
  shadow: true
`,
  hops: `service: "*"
hops: two
`,
};
