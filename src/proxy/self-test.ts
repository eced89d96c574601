import type { Channel, ChannelHandler } from '../io/channel.ts';

/** Most of a question, its line end included. */
const MAX_QUESTION = 64;
/** Bound on the time until the question is there. */
const QUESTION_MS = 2_000;
/** Most questions at once; those beyond are reset. */
const MOST_AT_ONCE = 32;
const LINE_END = 10;

/**
 * What the agent answers to a question at the address of the self-test (`selfTestAddress`): the words of a program that only
 * a worker can know when it has read them.
 */
export function selfTestAnswer(question: string): string {
  return `mesh-node took this: ${question}\n`;
}

/** Answers questions of `mesh-node check --self-test`: one line, and back it comes. Not written down as connections. */
export class SelfTestResponder {
  readonly #after: (milliseconds: number, expired: () => void) => () => void;
  #open = 0;

  /** @param after calls back once, about then; its answer takes that back. */
  constructor(after: (milliseconds: number, expired: () => void) => () => void) {
    this.#after = after;
  }

  accept(channel: Channel): void {
    if (this.#open >= MOST_AT_ONCE) {
      channel.reset();
      return;
    }
    this.#open++;
    const cancel = this.#after(QUESTION_MS, () => channel.reset());
    channel.handler = new Question(channel, () => {
      this.#open--;
      cancel();
    });
    channel.resume();
  }
}

class Question implements ChannelHandler {
  readonly #channel: Channel;
  readonly #closed: () => void;
  #text = '';
  #answered = false;

  constructor(channel: Channel, closed: () => void) {
    this.#channel = channel;
    this.#closed = closed;
  }

  data(bytes: Uint8Array): void {
    if (this.#answered) return;
    const end = bytes.indexOf(LINE_END);
    const part = end < 0 ? bytes : bytes.subarray(0, end);
    if (this.#text.length + part.length >= MAX_QUESTION) {
      this.#channel.reset();
      return;
    }
    this.#text += Buffer.from(part).toString('latin1');
    if (end < 0) return;
    this.#answered = true;
    this.#channel.write(Buffer.from(selfTestAnswer(this.#text), 'latin1'));
    this.#channel.end();
  }

  end(): void {
    if (!this.#answered) this.#channel.reset();
  }

  drain(): void {}

  close(): void {
    this.#closed();
  }
}
