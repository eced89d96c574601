import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { formatProblem } from '../../src/config/problem.ts';
import { fromSupervisor } from '../../src/daemon/control/from-supervisor.ts';
import { isPlainMessage } from '../../src/daemon/control/msgpack-form.ts';
import { Policies } from '../../src/model/policy.ts';
import type { ServiceName } from '../../src/model/service.ts';
import { differences } from '../../src/policy/difference.ts';
import { examples } from '../../src/policy/examples.ts';
import { readPolicies } from '../../src/policy/reading.ts';
import { FuzzRandom, fuzzRuns, fuzzSeed } from './serf-rpc.random.ts';

const path = '/etc/mesh-node/policies.d/a.yaml';
const read = (text: string) => readPolicies([{ path, bytes: new Uint8Array(Buffer.from(text)) }]);
const MOST_MS = 2000;

/** One of the values of `keys`, or none; the others are not there. */
const oneOf = (keys: Readonly<Record<string, fc.Arbitrary<unknown>>>) =>
  fc.oneof(...Object.entries(keys).map(([key, value]) => value.map((it) => ({ [key]: it }))));
const some = (keys: Readonly<Record<string, fc.Arbitrary<unknown>>>, requiredKeys: string[] = []) =>
  fc.record(keys, { requiredKeys });

const duration = fc
  .tuple(fc.integer({ min: 1, max: 576 }), fc.constantFrom('ms', 's', 'm', 'h'))
  .map((it) => it.join(''));
const share = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.constantFrom('0.5%', '100%', 33.25));
const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,10}[a-z]$/);
const service = fc.oneof(fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/), fc.constantFrom('constructor', 'a.b'));
const text = fc.string({ maxLength: 20 }).filter((it) => /^[^\p{C}\p{Zl}\p{Zp}]*$/u.test(it));
const path1 = fc.stringMatching(/^\/[a-z/]{0,12}$/);
const token = fc.stringMatching(/^[A-Za-z][A-Za-z-]{0,10}$/);
const regex = fc.constantFrom('^a+$', '[0-9]{2}', 'x|y', '(?i)z');
const comparison = fc.oneof(
  text,
  oneOf({ exact: text, prefix: text, regex, present: fc.constant(true), absent: fc.constant(true) }),
);
const pathMatch = fc.oneof(path1, oneOf({ exact: path1, prefix: path1, regex }));
const named = fc.dictionary(token, comparison, { minKeys: 1, maxKeys: 3 });
const caller = fc.oneof(
  fc.constant('*'),
  name.map((it) => `service:${it}`),
  name.map((it) => `unit:${it}-*`),
);
const many = (item: fc.Arbitrary<unknown>) => fc.oneof(item, fc.array(item, { minLength: 1, maxLength: 3 }));
const methods = many(fc.constantFrom('GET', 'POST', 'PURGE'));
const sticky = fc.oneof(fc.constant('caller'), oneOf({ header: token, cookie: token }));
const subset = fc.dictionary(name, text, { maxKeys: 2 });
const match = some({
  methods,
  path: pathMatch,
  headers: named,
  cookies: named,
  query: named,
  callers: many(caller),
}).filter((it) => Object.keys(it).length > 0);
const timeouts = some({
  connect: duration,
  request: duration,
  idle: fc.constant('0s'),
  stream: duration,
}).filter((it) => Object.keys(it).length > 0);
const retries = fc.oneof(
  fc.integer({ min: 0, max: 10 }),
  some({
    attempts: fc.nat(10),
    statuses: many(fc.integer({ min: 100, max: 599 })),
    methods,
    perTryTimeout: duration,
    headers: named,
  }),
);
const unique = <T>(item: fc.Arbitrary<T>, maxLength: number) =>
  fc.uniqueArray(item, {
    minLength: 1,
    maxLength,
    selector: (it) => (it as { readonly name?: string }).name,
  });
const route = fc.oneof(
  some(
    {
      ...{ name, match: many(match), percent: share, sticky, timeouts, retries },
      to: fc.array(fc.record({ subset, weight: fc.integer({ min: 1, max: 100 }) }), {
        minLength: 1,
        maxLength: 3,
      }),
      rewrite: oneOf({ path: path1, host: name }),
      fault: oneOf({
        delay: fc.oneof(duration, fc.record({ duration, percent: share })),
        abort: fc.integer({ min: 400, max: 599 }),
      }),
    },
    ['name'],
  ),
  fc.record({ name, redirect: oneOf({ path: path1, host: name }) }),
);
const sections = {
  routes: unique(route, 4),
  ...{ retries, timeouts },
  circuitBreaker: some({ connections: fc.constantFrom('off', 5), retries: fc.nat(9) }),
  outlier: some({
    consecutiveErrors: fc.integer({ min: 1, max: 9 }),
    latency: fc.constant({}),
    maxEjectedPercent: fc.nat(100),
  }),
  probe: some({ http: path1, rise: fc.integer({ min: 1, max: 9 }) }),
  balance: fc.oneof(
    fc.constantFrom('round-robin', 'peak-ewma'),
    fc.record({ algorithm: fc.constant('ring-hash'), hash: sticky }),
  ),
  rateLimits: unique(
    some(
      {
        name,
        rate: fc.constantFrom('5/s', '7/3m'),
        burst: fc.integer({ min: 1, max: 9 }),
        per: fc.constantFrom('service', 'caller'),
      },
      ['name', 'rate'],
    ),
    3,
  ),
  access: fc.record({
    rules: unique(
      fc.tuple(name, many(caller), methods).map(([it, allow, of]) => ({ name: it, allow, methods: of })),
      3,
    ),
    shadow: fc.boolean(),
  }),
  hops: fc.constantFrom('two', 'three'),
};
const document = fc
  .tuple(service, some(sections))
  .filter(([, said]) => Object.keys(said).length > 0)
  .map(([of, said]) => ({ service: of, ...said }));

describe('policies', () => {
  const runs = Math.max(100, Math.floor(fuzzRuns / 50));

  test('whatever is valid reaches a worker as it is', () => {
    const packr = new Packr({ useRecords: false });
    fc.assert(
      fc.property(
        fc.uniqueArray(document, { minLength: 1, maxLength: 4, selector: (it) => it.service }),
        (documents) => {
          const reading = read(documents.map((one) => stringify(one)).join('---\n'));
          if ('problems' in reading) throw new Error(reading.problems.map(formatProblem).join('\n'));
          const policies = { version: 7, ...reading.policies };
          const packed = packr.pack({ t: 'policies', policies });
          expect(isPlainMessage(packed, 1_000_000)).toBe(true);
          const message = fromSupervisor.read(packr.unpack(packed));
          if (typeof message !== 'object' || message.t !== 'policies') throw new Error('not taken');
          const [sent, got] = [new Policies(policies), new Policies(message.policies)];
          for (const { service: of } of documents)
            expect(got.for(of as ServiceName)).toStrictEqual(sent.for(of as ServiceName));
          expect(differences(policies, message.policies)).toEqual([]);
        },
      ),
      { numRuns: runs, seed: fuzzSeed('policies sent') },
    );
  });

  test('no text does anything but be read or refused, with its line, in bounded time', () => {
    const random = new FuzzRandom(fuzzSeed('policies'));
    const texts = Object.values(examples);
    const pieces = [
      ...[
        '- ',
        ': ',
        '\n',
        '  ',
        '{',
        '}',
        '[',
        ']',
        '*a',
        '&a ',
        '"',
        "'",
        '#',
        '|\n',
        '!!js ',
        'null',
        '~',
        '0x1',
        '1e999',
      ],
      ...[
        '.inf',
        '<<: *a',
        '---\n',
        '...\n',
        '%YAML 1.1\n',
        '\t',
        '\r\n',
        '\u0000',
        '\u2028',
        '? ',
        '*',
        '(',
        '{99}',
        '"*"',
      ],
      ...[
        '__proto__: {}',
        'constructor',
        'retries:',
        'service',
        '-1',
        '99999999999999999999',
        '100%',
        '/x',
        '1s',
        'caller',
      ],
    ];
    for (let run = 0; run < runs; run++) {
      let bent = texts[random.below(texts.length)]!;
      for (let edits = 1 + random.below(6); edits > 0; edits--) {
        const at = random.below(bent.length + 1);
        bent = bent.slice(0, at) + pieces[random.below(pieces.length)]! + bent.slice(at + random.below(8));
      }
      const begun = performance.now();
      const reading = read(bent);
      expect(performance.now() - begun).toBeLessThan(MOST_MS);
      if (!('problems' in reading)) continue;
      expect(reading.problems.length).toBeGreaterThan(0);
      for (const problem of reading.problems) {
        expect(formatProblem(problem)).toMatch(/^\/etc\/mesh-node\/policies\.d\/a\.yaml:/);
        expect(problem.expected).not.toBe('');
        if (bent !== '') expect(problem.line).toBeGreaterThan(0);
      }
    }
  });

  test('no bytes do, either', () => {
    const random = new FuzzRandom(fuzzSeed('policy bytes'));
    for (let run = 0; run < runs; run++) {
      const bytes = Uint8Array.from({ length: random.below(200) }, () => random.below(256));
      expect(readPolicies([{ path, bytes }])).toBeTypeOf('object');
    }
  });
});
