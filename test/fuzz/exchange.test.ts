import fc from 'fast-check';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Retries, retryConditions, type Timeouts } from '../../src/model/policy.ts';
import { type Caller, ChannelMesh, type Dialled, instanceOf } from '../unit/http/channel-mesh.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 4000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`exchange fuzz: seed ${seed}, ${runs} runs`);

const IDEMPOTENT = ['GET', 'PUT'];
/** Attempts without a policy, and one more where the first channel came from the pool. */
const DEFAULT_ATTEMPTS = 3;
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

const retries: fc.Arbitrary<Retries> = fc.record({
  on: fc.subarray([...retryConditions]),
  statuses: fc.subarray([503, 429]),
  headers: fc.constant([{ name: 'x-again', match: { kind: 'present' } as const }]),
  attempts: fc.nat(3),
  methods: fc.subarray(['GET', 'PUT', 'POST']),
  backoff: fc.constantFrom({ base: 0, max: 0 }, { base: 40, max: 100 }),
  budget: fc.constant({ percent: 20, perSecond: 10 }),
  replayBuffer: fc.constantFrom(0, 5, 1000),
});
const timeouts: fc.Arbitrary<Timeouts> = fc.record(
  { request: fc.constantFrom(150, 400), connect: fc.constantFrom(60, 200) },
  { requiredKeys: [] },
);

/** What happens next: to the connection made last, to an older one, to the caller, or nothing for a while. */
const step = fc.oneof(
  fc.constantFrom('open', 'refuse', 'reset', 'end', 'open', 'old reset', 'piece', 'piece', 'finish', 'gone'),
  fc.constantFrom(10, 30, 70, 250),
  fc.record({ says: fc.constantFrom(OK, 'HTTP/1.1 100 Continue\r\n\r\n', 'HTTP/1.1 103 x\r\n\r\n') }),
  fc.record({
    says: fc
      .tuple(fc.constantFrom(200, 204, 429, 503, 101), fc.boolean(), fc.nat(3))
      .map(
        ([status, again, more]) =>
          `HTTP/1.1 ${status} x\r\n${again ? 'X-Again: 1\r\n' : ''}` +
          `${status === 204 || status === 101 ? '' : 'content-length: 3\r\n'}\r\n${'abc'.slice(more)}`,
      ),
  }),
  fc.record({ says: fc.constantFrom('H', 'HTTP/1.1 2', 'nonsense\r\n\r\n', 'abc') }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const request = fc.record({
  method: fc.constantFrom('GET', 'PUT', 'POST'),
  pieces: fc.array(fc.stringMatching(/^[a-z]{1,6}$/), { maxLength: 4 }),
  chunked: fc.boolean(),
  expects: fc.boolean(),
});
type Asked = typeof request extends fc.Arbitrary<infer T> ? T : never;

const course = fc.record({
  request,
  instances: fc.integer({ min: 0, max: 4 }),
  warm: fc.boolean(),
  retries: fc.option(fc.tuple(retries, fc.option(fc.constantFrom(50, 120), { nil: undefined })), {
    nil: undefined,
  }),
  timeouts: fc.option(timeouts, { nil: undefined }),
  budget: fc.nat(3),
  steps: fc.array(step, { maxLength: 25 }),
});

beforeAll(() => ChannelMesh.install());
afterAll(() => {
  vi.useRealTimers();
});

/** The caller's side of one request: says it bit by bit, as far as it is read. */
class Asking {
  readonly #caller: Caller;
  readonly #asked: Asked;
  readonly #left: string[];
  #finished = false;

  constructor(caller: Caller, asked: Asked) {
    const { method, pieces, chunked, expects } = asked;
    this.#caller = caller;
    this.#asked = asked;
    this.#left = [...pieces];
    const framing = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${pieces.join('').length}`;
    caller.says(
      `${method} / HTTP/1.1\r\nHost: web\r\n${expects ? 'Expect: 100-continue\r\n' : ''}${framing}\r\n\r\n`,
    );
  }

  piece(): void {
    if (this.#caller.paused || this.#over) return;
    const piece = this.#left.shift();
    if (piece !== undefined) {
      this.#caller.says(this.#asked.chunked ? `${piece.length.toString(16)}\r\n${piece}\r\n` : piece);
    } else if (this.#asked.chunked && !this.#finished) {
      this.#finished = true;
      this.#caller.says('0\r\n\r\n');
    }
  }

  finish(): void {
    for (let i = 0; i <= this.#asked.pieces.length; i++) this.piece();
  }

  get #over(): boolean {
    return this.#caller.closed || this.#caller.ended || this.#caller.resetWith !== undefined;
  }
}

function happens(step: Step, mesh: ChannelMesh, caller: Caller, asking: Asking): void {
  const { last } = mesh;
  const usable = last !== undefined && !last.closed && last.resetWith === undefined;
  if (typeof step === 'object') {
    if (usable) last.answers(step.says);
    return;
  }
  switch (step) {
    case 'open':
      if (usable) last.takes();
      return;
    case 'refuse':
      if (usable && !last.accepted) last.refuses();
      return;
    case 'reset':
      if (usable) last.loses();
      return;
    case 'end':
      if (usable) last.takes().handler.end();
      return;
    case 'old reset':
      mesh.dialled.find(({ closed }) => !closed)?.loses();
      return;
    case 'piece':
      asking.piece();
      return;
    case 'finish':
      asking.finish();
      return;
    case 'gone':
      if (!caller.closed) caller.close({ reason: 'reset', delivered: true });
  }
}

/** Content of a request as it arrived, and whether it is whole. */
function contentOf(text: string, chunked: boolean): string {
  const content = text.slice(text.indexOf('\r\n\r\n') + 4);
  if (!chunked) return content;
  let seen = '';
  for (let rest = content; ; ) {
    const at = rest.indexOf('\r\n');
    const length = Number.parseInt(rest.slice(0, at), 16);
    if (at < 0 || !(length > 0)) return seen;
    seen += rest.slice(at + 2, at + 2 + length);
    rest = rest.slice(at + 4 + length);
  }
}

/** Answers in what a caller was told: heads of interim ones are skipped, an incomplete one is `cut`. */
function answersIn(text: string): string[] {
  const answers: string[] = [];
  for (let rest = text; rest !== ''; ) {
    const head = /^HTTP\/1\.1 (\d{3}) [\s\S]*?\r\n\r\n/.exec(rest);
    if (head === null) return [...answers, 'cut'];
    rest = rest.slice(head[0].length);
    const status = Number(head[1]);
    if (status === 101) return [...answers, '101'];
    if (status < 200) continue;
    const length = Number(/\r\ncontent-length: (\d+)/.exec(head[0])?.[1] ?? 0);
    answers.push(rest.length < length ? 'cut' : String(status));
    rest = rest.slice(length);
  }
  return answers;
}

test('whatever instances do, one answer comes of a request, and no more is asked than policy and budget allow', async () => {
  await fc.assert(
    fc.asyncProperty(course, async (given) => {
      const mesh = new ChannelMesh();
      const { method, pieces, chunked } = given.request;
      mesh.instances = Array.from({ length: given.instances }, (_, index) => instanceOf(String(index + 1)));
      const caller = mesh.call(given.warm ? 'GET / HTTP/1.1\r\nHost: web\r\n\r\n' : '');
      if (given.warm) mesh.last?.answers(OK);
      const before = { text: caller.text.length, dialled: mesh.dialled.length, records: mesh.records.length };
      const warmWritten = mesh.last?.text.length ?? 0;

      const rule = given.retries?.[0];
      const perTryTimeout = given.retries?.[1];
      let granted = 0;
      mesh.policy = {
        ...(rule === undefined ? {} : { retries: { ...rule, ...(perTryTimeout && { perTryTimeout }) } }),
        ...(given.timeouts === undefined ? {} : { timeouts: given.timeouts }),
      };
      mesh.limits = {
        rates: { admit: () => undefined },
        services: {
          breaker: () => undefined,
          request: () => {},
          tryRetry: () => granted < given.budget && ++granted > 0,
        },
      };
      const asking = new Asking(caller, given.request);
      for (const step of given.steps) {
        if (typeof step === 'number') await mesh.pass(step);
        else happens(step, mesh, caller, asking);
      }
      // Whatever is left comes to its end.
      for (let round = 0; round < 20 && mesh.records.length === before.records; round++) {
        asking.finish();
        await mesh.pass(100);
        const { last } = mesh;
        if (last === undefined || last.closed || last.resetWith !== undefined) continue;
        if (round < 10) last.answers(OK);
        else last.loses();
      }
      await mesh.pass(2000);

      const pooled = given.warm && mesh.dialled[0] !== undefined && mesh.dialled[0].text.length > warmWritten;
      const attempts = mesh.dialled.length - before.dialled + (pooled ? 1 : 0);
      if (rule === undefined) expect(attempts).toBeLessThanOrEqual(DEFAULT_ATTEMPTS + (pooled ? 1 : 0));
      else {
        expect(attempts).toBeLessThanOrEqual(rule.attempts + 1);
        expect(Math.max(0, attempts - 1)).toBeLessThanOrEqual(granted);
      }

      const asked: Dialled[] = mesh.dialled.slice(before.dialled);
      const heard = asked.filter(({ accepted }) => accepted).length + (pooled ? 1 : 0);
      if (!(rule?.methods ?? IDEMPOTENT).includes(method)) expect(heard).toBeLessThanOrEqual(1);
      for (const { text } of asked) {
        expect(text.startsWith(`${method} / HTTP/1.1\r\n`)).toBe(true);
        expect(pieces.join('').startsWith(contentOf(text, chunked))).toBe(true);
        expect(text.match(new RegExp(`${method} / HTTP`, 'g'))).toHaveLength(1);
      }

      expect(mesh.records.length - before.records).toBe(1);
      expect(mesh.active).toBe(0);
      const answers = answersIn(caller.text.slice(before.text));
      const gone = given.steps.includes('gone') || caller.resetWith !== undefined;
      if (gone) expect(answers.length).toBeLessThanOrEqual(1);
      else expect(answers).toHaveLength(1);
      if (!gone) expect(answers[0]).not.toBe('cut');
      vi.clearAllTimers();
    }),
    { numRuns: runs, seed },
  );
});
