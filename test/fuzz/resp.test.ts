import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Conversation } from '../../src/resp/conversation.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`RESP fuzz: seed ${seed}, ${runs} runs`);

const text = fc.string({ maxLength: 12 }).map((value) => value.replaceAll(/[\r\n]/g, '.'));
const binary = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1'));

/** A command as clients write it, and the name under which it is counted. */
const command = fc
  .tuple(fc.constantFrom('get', 'SET', 'hgetall', 'Exec', 'ft.search'), fc.array(binary, { maxLength: 4 }))
  .map(([name, values]) => ({
    bytes: `*${values.length + 1}\r\n${[name, ...values].map((each) => `$${each.length}\r\n${each}\r\n`).join('')}`,
    name: name.includes('.') ? 'other' : name.toLowerCase(),
  }));

const value: fc.Arbitrary<string> = fc.letrec<{ value: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    text.map((line) => `+${line}\r\n`),
    fc.integer().map((number) => `:${number}\r\n`),
    binary.map((bytes) => `$${bytes.length}\r\n${bytes}\r\n`),
    fc.constantFrom('$-1\r\n', '*-1\r\n', '_\r\n', '#t\r\n', ',inf\r\n', '-ERR inner\r\n'),
    fc
      .tuple(fc.constantFrom('*', '~'), fc.array(tie('value'), { maxLength: 4 }))
      .map(([type, values]) => `${type}${values.length}\r\n${values.join('')}`),
    fc
      .array(fc.tuple(tie('value'), tie('value')), { maxLength: 3 })
      .map((pairs) => `%${pairs.length}\r\n${pairs.flat().join('')}`),
    fc.tuple(tie('value'), tie('value')).map(([about, told]) => `|1\r\n+x\r\n${about}${told}`),
  ),
})).value;

/** An answer, and whether it is counted as an error. What is pushed before it answers nothing. */
const answer = fc
  .tuple(fc.option(value), fc.oneof(value, fc.constantFrom('-ERR no\r\n', '!5\r\nOOM x\r\n')))
  .map(([pushed, told]) => ({
    bytes: `${pushed === null ? '' : `>1\r\n${pushed}`}${told}`,
    failed: told.startsWith('-') || told.startsWith('!'),
  }));

function follow() {
  const told: string[] = [];
  const conversation = new Conversation({
    answered: (name, failed) => told.push(`${name} ${failed}`),
    unanswered: (name, count) => told.push(`${name} none ${count}`),
    error: () => {},
    lost: (why) => told.push(`lost ${why}`),
  });
  return { conversation, told };
}

function cut(bytes: string, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((at) => at % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return places.slice(1).map((to, at) => Buffer.from(bytes.slice(places[at], to), 'latin1'));
}

test('every command is counted with its own answer, however both are cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(command, answer), { maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      (exchanges, askCuts, answerCuts) => {
        const { conversation, told } = follow();
        for (const bytes of cut(exchanges.map(([{ bytes }]) => bytes).join(''), askCuts))
          conversation.fromCaller(bytes);
        for (const bytes of cut(exchanges.map(([, { bytes }]) => bytes).join(''), answerCuts))
          conversation.fromService(bytes);
        conversation.close();
        expect(told).toEqual(exchanges.map(([{ name }, { failed }]) => `${name} ${failed}`));
      },
    ),
    { numRuns: runs, seed },
  );
});

test('whatever is said, nothing is thrown, and each command is counted once', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((noise) => Buffer.from(noise).toString('latin1')),
    command.map((each) => each.bytes),
    answer.map((each) => each.bytes),
  );
  const said = fc.tuple(fc.boolean(), bytes, fc.option(fc.tuple(fc.nat(), fc.nat(255))));
  fc.assert(
    fc.property(fc.array(said, { maxLength: 8 }), (turns) => {
      const { conversation, told } = follow();
      for (const [asks, each, change] of turns) {
        const piece = Buffer.from(each, 'latin1');
        if (change !== null && piece.length > 0) piece[change[0] % piece.length] = change[1];
        if (asks) conversation.fromCaller(piece);
        else conversation.fromService(piece);
      }
      conversation.close();
      const count = told.length;
      conversation.fromCaller(Buffer.from('PING\r\n'));
      conversation.fromService(Buffer.from('+PONG\r\n'));
      expect(told).toHaveLength(count);
      expect(told.filter((line) => line.startsWith('lost')).length).toBeLessThanOrEqual(1);
    }),
    { numRuns: runs, seed },
  );
});
