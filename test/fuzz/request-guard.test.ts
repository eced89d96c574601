import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RequestGuard } from '../../src/http/request-guard.ts';
import type { RequestHead } from '../../src/http1/request-head.ts';
import { RequestParser } from '../../src/http1/request-parser.ts';
import { Relay } from '../../src/proxy/relay.ts';
import { MemoryChannel, turn } from '../unit/proxy/memory-channel.ts';

const runs = Number(process.env['MESH_FUZZ_RUNS'] ?? 500);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
console.log(`request guard fuzz: seed ${seed}, ${runs} runs`);

/** Turns in which anything happens, and those after them in which everybody reads and ends. */
const WILD = 30;
const CALM = 150;

const DONE = { reason: 'done', delivered: true } as const;

/** Draws what happens next. */
class Dice {
  readonly #draw: fc.GeneratorValue;

  constructor(draw: fc.GeneratorValue) {
    this.#draw = draw;
  }

  below(most: number): number {
    return this.#draw(fc.nat, { max: most - 1 });
  }

  /** True so many times in ten. */
  hits(inTen: number): boolean {
    return this.below(10) < inTen;
  }
}

/** A side of the guard that may stop reading. */
class Side extends MemoryChannel {
  endSaid = false;

  get over(): boolean {
    return this.closed || this.resetWith !== undefined;
  }

  says(text: string): void {
    this.handler.data(Buffer.from(text));
  }

  ends(): void {
    this.endSaid = true;
    this.handler.end();
  }

  /** Takes more or less from now on, and is over when both halves are. */
  lives(dice: Dice, calm: boolean): void {
    if (this.over) return;
    if (this.full && (calm || dice.hits(2))) {
      this.full = false;
      this.handler.drain();
    } else if (!calm && dice.hits(1)) this.full = true;
    if (this.endSaid && this.ended && !this.full) this.close(DONE);
  }
}

/** Answers requests in all the ways that servers do. */
class Instance extends Side {
  readonly #dice: Dice;
  readonly #parser: RequestParser;
  #read = 0;
  #answer = '';
  #lastAnswer = false;
  #early = false;

  constructor(dice: Dice) {
    super();
    this.#dice = dice;
    let asked: RequestHead;
    this.#parser = new RequestParser({
      head: (head) => {
        asked = head;
        this.#early = dice.hits(1);
        if (this.#early) this.#answers(asked);
      },
      content: () => {},
      end: () => {
        if (!this.#early) this.#answers(asked);
      },
    });
  }

  #answers({ method, keepAlive }: RequestHead): void {
    const content = 'x'.repeat(this.#dice.below(40));
    const kind = method === 'HEAD' ? 2 : this.#dice.below(4);
    const closes = kind === 1 || !keepAlive || this.#dice.hits(2);
    this.#lastAnswer ||= closes;
    const head = `HTTP/1.1 200 OK\r\n${closes ? 'connection: close\r\n' : ''}`;
    const { length } = content;
    const chunk = length === 0 ? '' : `${length.toString(16)}\r\n${content}\r\n`;
    if (kind === 0) this.#answer += `${head}transfer-encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`;
    else if (kind === 1) this.#answer += `${head}\r\n${content}`;
    else this.#answer += `${head}content-length: ${length}\r\n\r\n${method === 'HEAD' ? '' : content}`;
  }

  override lives(dice: Dice, calm: boolean): void {
    if (!this.over) {
      const all = Buffer.concat(this.written);
      while (this.#read < all.length && (!this.#parser.done || this.#parser.next())) {
        this.#read = this.#parser.push(all, this.#read);
      }
      if (!this.paused && !this.endSaid && dice.hits(6)) this.#speaks(dice);
    }
    super.lives(dice, calm);
  }

  #speaks(dice: Dice): void {
    const length = 1 + dice.below(30);
    const piece = this.#answer.slice(0, length);
    this.#answer = this.#answer.slice(length);
    if (piece !== '') this.says(piece);
    else if (this.#lastAnswer || this.ended) this.ends();
  }
}

function requests(dice: Dice): string {
  let text = '';
  for (let left = 1 + dice.below(5); left > 0; left--) {
    const method = ['GET', 'PUT', 'POST', 'HEAD'][dice.below(4)];
    const content = 'a'.repeat(dice.hits(5) ? 0 : dice.below(60));
    const head = `${method} ${dice.hits(4) ? '/no' : '/yes'} HTTP/1.1\r\nhost: web\r\n`;
    const close = dice.hits(1) ? 'connection: close\r\n' : '';
    const { length } = content;
    const chunk = length === 0 ? '' : `${length.toString(16)}\r\n${content}\r\n`;
    text += dice.hits(3)
      ? `${head}${close}transfer-encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`
      : `${head}${close}content-length: ${length}\r\n\r\n${content}`;
  }
  return dice.hits(2) ? text.slice(0, dice.below(text.length)) : text;
}

test('whatever callers and instances do, nothing denied is passed on, and both sides end', async () => {
  const course = async (draw: fc.GeneratorValue): Promise<void> => {
    const dice = new Dice(draw);
    const instance = new Instance(dice);
    const caller = new Side();
    const guard = new RequestGuard(instance, 'web', {
      denial: ({ path }) => (path === '/no' ? 'rule x' : undefined),
      switched: () => {},
    });
    let over = false;
    new Relay(caller, guard, () => {
      over = true;
    });
    caller.resume();
    guard.resume();
    let text = requests(dice);
    for (let at = 0; at < WILD + CALM && !over; at++) {
      const calm = at >= WILD;
      if (!caller.paused && !caller.over && !caller.endSaid && dice.hits(5)) {
        const length = 1 + dice.below(60);
        if (text !== '') caller.says(text.slice(0, length));
        else if (calm) caller.ends();
        text = text.slice(length);
      }
      instance.lives(dice, calm);
      caller.lives(dice, calm);
      await turn();
    }
    expect(over).toBe(true);
    expect(instance.text).not.toContain('/no');
  };
  await fc.assert(fc.asyncProperty(fc.gen(), course), { seed, numRuns: runs });
});
