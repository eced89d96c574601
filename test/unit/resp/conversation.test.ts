import { describe, expect, it } from 'vitest';
import { Conversation } from '../../../src/resp/conversation.ts';

/** What a conversation tells; times are of a clock that the test sets. */
function follow() {
  const told: string[] = [];
  const clock = { now: 0 };
  const conversation = new Conversation(
    {
      answered: (command, failed, ms) => told.push(`${command} ${failed ? 'error' : 'ok'} ${ms}`),
      unanswered: (command, count) => told.push(`${command} none ${count}`),
      error: (word) => told.push(`error ${word}`),
      lost: (why) => told.push(`lost ${why}`),
    },
    () => clock.now,
  );
  const ask = (text: string) => conversation.fromCaller(Buffer.from(text, 'latin1'));
  const answer = (text: string) => conversation.fromService(Buffer.from(text, 'latin1'));
  const take = () => told.splice(0);
  return { conversation, clock, ask, answer, take };
}

/** A command as clients send it. */
const command = (...parts: readonly string[]) =>
  `*${parts.length}\r\n${parts.map((part) => `$${part.length}\r\n${part}\r\n`).join('')}`;

describe('Conversation', () => {
  it('pairs answers with commands, in their order, and measures them', () => {
    const { clock, ask, answer, take } = follow();
    ask(command('SET', 'key', 'value'));
    clock.now = 5;
    answer('+OK\r\n');
    expect(take()).toEqual(['set ok 5']);
    ask(command('get', 'a') + command('Get', 'b') + command('MADE.UP', 'c') + command('x'.repeat(500)));
    clock.now = 8;
    answer('$1\r\nx\r\n$-1\r\n');
    clock.now = 9;
    answer('-WRONGTYPE Operation against a key\r\n:1\r\n');
    expect(take()).toEqual(['get ok 3', 'get ok 3', 'error WRONGTYPE', 'other error 4', 'other ok 4']);
  });

  it.each([
    ['simple strings and numbers', '+OK\r\n:12\r\n:-1\r\n', 3],
    ['nulls', '$-1\r\n*-1\r\n_\r\n', 3],
    ['empty ones', '$0\r\n\r\n*0\r\n%0\r\n~0\r\n', 4],
    ['strings with line ends', '$4\r\n\r\n+\n\r\n', 1],
    ['nested arrays', '*2\r\n*2\r\n:1\r\n*0\r\n$3\r\nabc\r\n', 1],
    ['maps and sets', '%2\r\n+a\r\n:1\r\n+b\r\n~2\r\n#t\r\n,1.5\r\n', 1],
    ['big numbers, verbatim strings', '(12345678901234567890\r\n=7\r\ntxt:abc\r\n', 2],
    ['an attribute before an answer', '|1\r\n+ttl\r\n:3\r\n+OK\r\n', 1],
  ])('knows where an answer ends: %s, cut anywhere', (_what, text, count) => {
    for (let at = 0; at <= text.length; at++) {
      const { ask, answer, take } = follow();
      ask(command('get', 'a').repeat(count + 1));
      answer(text.slice(0, at));
      answer(text.slice(at));
      expect(take(), `cut at ${at}`).toEqual(new Array(count).fill('get ok 0'));
    }
  });

  it('knows errors by their first word, also in the answer of EXEC', () => {
    const { ask, answer, take } = follow();
    ask(command('eval').repeat(5));
    answer('-ERR\r\n-MYERR because\r\n!10\r\nNOPERM it.\r\n*2\r\n-OOM x\r\n+OK\r\n');
    answer(`-${'LONG'.repeat(20)} x\r\n`);
    expect(take()).toEqual([
      ...['error ERR', 'eval error 0', 'error other', 'eval error 0', 'error NOPERM', 'eval error 0'],
      ...['error OOM', 'eval ok 0', 'error other', 'eval error 0'],
    ]);
  });

  it('reads inline commands, and what is no command at all', () => {
    const { ask, answer, take } = follow();
    ask('ping\r\nGET  a b\n\r\n   \r\n*0\r\n*-1\r\n  set x\r\n');
    answer('+PONG\r\n$-1\r\n+OK\r\n');
    expect(take()).toEqual(['ping ok 0', 'get ok 0', 'set ok 0']);
  });

  it.each([
    ['subscribe', '*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n'],
    ['subscribe', '>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n'],
    ['monitor', '+OK\r\n'],
    ['psync', '+FULLRESYNC 1 2\r\n'],
  ])('only counts commands once the server speaks as it likes: %s', (name, first) => {
    const { conversation, ask, answer, take } = follow();
    ask(command('auth', 'secret') + command(name, 'a'));
    answer(`+OK\r\n${first}*3\r\n$7\r\nmessage\r\nanything at all`);
    ask(command('ping'));
    answer('nonsense');
    expect(take()).toEqual(['auth ok 0', `${name} ok 0`, 'ping none 1']);
    conversation.close();
    expect(take()).toEqual([]);
  });

  it('goes on pairing after a SUBSCRIBE that was refused, and past what is pushed', () => {
    const { ask, answer, take } = follow();
    ask(command('subscribe', 'a') + command('get', 'a'));
    answer('-NOPERM no\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n+x\r\n');
    expect(take()).toEqual(['error NOPERM', 'subscribe error 0', 'get ok 0']);
  });

  it('only counts commands after CLIENT REPLY, and not after other words to CLIENT', () => {
    const { ask, answer, take } = follow();
    ask(command('CLIENT', 'SETNAME', 'REPLY'));
    answer('+OK\r\n');
    ask(command('get', 'a') + command('client', 'reply', 'off') + command('get', 'b'));
    answer('$-1\r\n');
    expect(take()).toEqual(['client ok 0', 'get none 1', 'client none 1', 'get none 1']);
  });

  it('says what was not answered when the connection ends', () => {
    const { conversation, ask, answer, take } = follow();
    ask(command('get', 'a').repeat(3) + command('set', 'a', 'b'));
    answer('$-1\r\n*2\r\n:1\r\n');
    conversation.close();
    conversation.close();
    expect(take()).toEqual(['get ok 0', 'get none 2', 'set none 1']);
  });

  it.each([
    ['no array of strings', '*1\r\n:1\r\n'],
    ['a number that is none', '*x\r\n'],
    ['too many arguments', '*1048577\r\n'],
    ['a string that is too long', '*1\r\n$536870913\r\n'],
    ['a string of another length', '*1\r\n$1\r\nabc'],
    ['TLS', '\x16\x03\x01\0\x05hello'],
    ['an endless line', 'a'.repeat(70_000)],
    ['an endless number', `*${'0'.repeat(100)}`],
  ])('gives commands up that cannot be followed: %s', (_what, text) => {
    const { ask, answer, take } = follow();
    ask(command('get', 'a'));
    ask(text);
    expect(take()).toEqual(['get none 1', 'lost commands']);
    ask(command('get', 'a'));
    answer('+OK\r\n');
    expect(take()).toEqual([]);
  });

  it.each([
    ['no type', 'OK\r\n'],
    ['a length that is none', '$a\r\n'],
    ['a negative length', '$-2\r\n'],
    ['a streamed string', '$?\r\n'],
    ['a string of another length', '$1\r\nabc'],
    ['a push within an answer', '*1\r\n>0\r\n'],
    ['more elements than there can be', '%9999999999\r\n'],
    ['HTTP', 'HTTP/1.1 400 Bad Request\r\n'],
  ])('gives answers up that cannot be followed: %s', (_what, text) => {
    const { ask, answer, take } = follow();
    ask(command('get', 'a'));
    answer(text);
    expect(take()).toEqual(['get none 1', 'lost answers']);
  });

  it('follows a pipeline of equal commands of any length, and gives up a colourful one', () => {
    const { conversation, clock, ask, answer, take } = follow();
    for (let read = 0; read < 100; read++) {
      clock.now = read;
      ask(command('set', 'a', 'b').repeat(1000));
    }
    answer('+OK\r\n'.repeat(99_999));
    expect(take()).toHaveLength(99_999);
    conversation.close();
    expect(take()).toEqual(['set none 1']);
    const other = follow();
    other.ask((command('get', 'a') + command('set', 'a', 'b')).repeat(3000));
    expect(other.take().at(-1)).toBe('lost pipeline');
  });

  it('takes an answer that nobody asked for as nothing', () => {
    const { ask, answer, take } = follow();
    answer('-ERR max number of clients reached\r\n');
    ask(command('ping'));
    answer('+PONG\r\n');
    expect(take()).toEqual(['error ERR', 'ping ok 0']);
  });
});
