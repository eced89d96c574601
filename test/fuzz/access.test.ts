import fc from 'fast-check';
import { expect, it } from 'vitest';
import { AccessRules } from '../../src/access/rules.ts';
import { RequestGuard } from '../../src/http/request-guard.ts';
import type { AccessRule, RequestMatch } from '../../src/model/policy.ts';
import { pathReadings, plainPath } from '../../src/policy/match/path.ts';
import { compileRequest } from '../../src/policy/match/request.ts';
import { compileText, MAX_REGEX_INPUT } from '../../src/policy/match/text.ts';
import { callerView, requestView } from '../unit/policy/match/sample-request.ts';
import { MemoryChannel, turn } from '../unit/proxy/memory-channel.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 3_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`access fuzz: seed ${seed}, ${runs} runs`);

/** Pieces that servers read in different ways, and plain ones. */
const piece = fc.constantFrom(
  ...['/', '//', '/.', '/..', '.', '..', '\\', ';', ';v=1', '+', '%', '%2', '%00', '%zz', 'a', 'admin', 'x'],
  ...['%2e', '%2E', '%2f', '%2F', '%5c', '%3b', '%25', '%252e', '%252f', '%61', '%c3%9f', '?', '{', '|'],
);
const path = fc.array(piece, { maxLength: 24 }).map((pieces) => `/${pieces.join('')}`);
const anything = fc.string({ maxLength: 200 });
const text = fc.oneof(path, anything);
const textMatch = fc.oneof(
  fc.record({ kind: fc.constantFrom('exact' as const, 'prefix' as const, 'regex' as const), value: text }),
  fc.record({ kind: fc.constantFrom('present' as const, 'absent' as const) }),
);
const named = fc.array(fc.record({ name: fc.constantFrom('a', 'b', ''), match: textMatch }), {
  maxLength: 3,
});
const callers = fc.array(fc.oneof(anything, fc.constantFrom('*', 'unit:front', 'node:web1', 'user:*')), {
  maxLength: 3,
});
const requestMatch: fc.Arbitrary<RequestMatch> = fc.record(
  { path: textMatch, headers: named, cookies: named, query: named, callers },
  { requiredKeys: [] },
);

it('matchers of any kind take any request without a throw', () => {
  fc.assert(
    fc.property(requestMatch, text, anything, anything, (match, target, field, cookie) => {
      const view = requestView('GET', target, { a: field, cookie });
      expect(compileRequest(match)(view)).toBeTypeOf('boolean');
    }),
    { numRuns: runs, seed },
  );
});

it('paths have few readings, each in normal form, and the plain one among those that are decided by', () => {
  fc.assert(
    fc.property(path, (target) => {
      const raw = target.split('?')[0]!;
      expect(plainPath(plainPath(raw))).toBe(plainPath(raw));
      const readings = pathReadings(raw);
      if (readings === undefined) return;
      expect(readings.length).toBeLessThanOrEqual(32);
      expect(readings).toContain(plainPath(raw));
      for (const reading of readings) expect(reading.startsWith('/')).toBe(true);
    }),
    { numRuns: runs, seed },
  );
});

it('no spelling of a path is both allowed by one rule and denied by the same path', () => {
  const rule = (action: AccessRule['action']): AccessRule => ({
    ...{ name: 'r', action, callers: ['*'], paths: [{ kind: 'prefix', value: '/admin' }] },
  });
  const allows = new AccessRules({ rules: [rule('allow')], otherwise: 'deny', shadow: false });
  const denies = new AccessRules({ rules: [rule('deny')], otherwise: 'allow', shadow: false });
  fc.assert(
    fc.property(path, (target) => {
      const request = { method: 'GET', path: target };
      const allowed = allows.request(callerView(), 80, request).action === 'allow';
      const passes = denies.request(callerView(), 80, request).action === 'allow';
      expect(allowed && passes).toBe(false);
    }),
    { numRuns: runs, seed },
  );
});

it('expressions and paths that are made to take long do not', () => {
  const long = 'a'.repeat(MAX_REGEX_INPUT);
  for (const regex of ['(a+)+$', '(a|aa)*c', '(x+x+)+y', '(.*)(.*)(.*)[^a]$', '[ab]*a[ab]{200}c']) {
    const began = performance.now();
    compileText({ kind: 'regex', value: regex })(`${long}`);
    expect(performance.now() - began, regex).toBeLessThan(2_000);
  }
  const rules = new AccessRules({
    rules: [{ name: 'r', action: 'deny', callers: ['*'], paths: [{ kind: 'regex', value: '(a+)+/(b+)+$' }] }],
    otherwise: 'allow',
    shadow: false,
  });
  const began = performance.now();
  for (const unit of ['/..', '//', '/%2e%2e', '%252f', ';a', '\\..', '%25']) {
    rules.request(callerView(), 80, { method: 'GET', path: `/${unit.repeat(8000 / unit.length)}` });
    rules.request(callerView(), 80, { method: 'GET', path: `/${unit.repeat(1000 / unit.length)}` });
  }
  expect(performance.now() - began).toBeLessThan(5_000);
});

it('a guard passes nothing on of what it denies, whatever is said to it and however it is cut', async () => {
  const part = fc.constantFrom(
    ...[
      'GET /no HTTP/1.1\r\nhost: a\r\n\r\n',
      'GET /yes HTTP/1.1\r\nhost: a\r\n\r\n',
      'GET /no',
      '\r\n',
      '\n',
    ],
    ...[
      'POST /no HTTP/1.1\r\nhost: a\r\ncontent-length: 34\r\n\r\nGET /no HTTP/1.1\r\nhost: smuggled\r\n\r\n',
    ],
    ...['POST /yes HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n', '5\r\nhello\r\n', '0\r\n\r\n'],
    ...[
      'transfer-encoding: chunked\r\n',
      'content-length: 5\r\n',
      'hello',
      ' HTTP/1.1\r\n',
      'host: b\r\n',
      '\x00',
    ],
  );
  const answer = fc.constantFrom(
    ...[
      'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok',
      'HTTP/1.1 204 No Content\r\n\r\n',
      'nonsense\r\n\r\n',
    ],
    'HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n',
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          part,
          answer.map((bytes) => ({ bytes })),
        ),
        { maxLength: 12 },
      ),
      fc.integer({ min: 1, max: 40 }),
      async (steps, cut) => {
        const inner = new MemoryChannel();
        const guard = new RequestGuard(inner, 'web', {
          denial: ({ path: asked }) => (asked.startsWith('/no') ? 'no' : undefined),
          switched: () => {},
        });
        let closes = 0;
        guard.handler = { data() {}, end() {}, drain() {}, close: () => void closes++ };
        guard.resume();
        for (const step of steps) {
          if (typeof step === 'object') {
            if (!inner.closed && inner.resetWith === undefined) inner.handler.data(Buffer.from(step.bytes));
          } else {
            for (let at = 0; at < step.length; at += cut) {
              guard.write(Buffer.from(step.slice(at, at + cut), 'latin1'));
            }
          }
          await turn();
        }
        expect(inner.text).not.toMatch(/^[A-Z]+ \/no/m);
        expect(closes).toBeLessThanOrEqual(1);
      },
    ),
    { numRuns: Math.ceil(runs / 3), seed },
  );
});
