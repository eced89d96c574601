import { AnswerReader } from './answer-reader.ts';
import { CommandReader } from './command-reader.ts';
import { beginsFeed } from './commands.ts';

/** Runs of equal commands that wait for their answers. A pipeline of more is not followed. */
const MAX_WAITING = 4096;

/** Who is told what a connection says. Names are of closed sets. */
export interface ConversationListener {
  /** A command was answered, `durationMs` after it was read. */
  answered(command: string, failed: boolean, durationMs: number): void;
  /** So many of this command were asked, and their answers were not seen: the connection ended, or answers are not told apart. */
  unanswered(command: string, count: number): void;
  /** An error was answered. */
  error(word: string): void;
  /** The bytes could not be followed, and are not looked at any more. */
  lost(why: 'commands' | 'answers' | 'pipeline'): void;
}

/** Equal commands that came together. */
interface Run {
  readonly command: string;
  /** When they were read, in ms. */
  readonly at: number;
  count: number;
}

/**
 * One connection to a Redis: pairs its answers with its commands, which are answered in their order. After SUBSCRIBE,
 * MONITOR and the like, and after CLIENT REPLY, answers are no longer one for each command: from then on commands are
 * only counted.
 *
 * `paired` → `counting` → `lost`; whatever happens here, the bytes go on.
 */
export class Conversation {
  readonly #listener: ConversationListener;
  readonly #now: () => number;
  readonly #commands = new CommandReader((command, silences) => this.#asked(command, silences));
  readonly #answers: AnswerReader;
  #state: 'paired' | 'counting' | 'lost' = 'paired';
  #waiting: Run[] = [];
  /** Place of the oldest run; those before it are answered. */
  #first = 0;
  #readAt = 0;

  /** `now`: milliseconds of a clock that never steps. */
  constructor(listener: ConversationListener, now: () => number = () => performance.now()) {
    this.#listener = listener;
    this.#now = now;
    this.#answers = new AnswerReader({
      answer: (failed, pushed) => this.#answered(failed, pushed),
      error: (word) => listener.error(word),
    });
  }

  /** The caller said this. */
  fromCaller(bytes: Uint8Array): void {
    if (this.#state === 'lost') return;
    this.#readAt = this.#now();
    if (!this.#commands.push(bytes)) this.#lose('commands');
    else if (this.#waiting.length - this.#first > MAX_WAITING) this.#lose('pipeline');
  }

  /** The service said this. */
  fromService(bytes: Uint8Array): void {
    if (this.#state === 'paired' && !this.#answers.push(bytes)) this.#lose('answers');
  }

  /** The connection is over. */
  close(): void {
    this.#leave('lost');
  }

  #asked(command: string, silences: boolean): void {
    if (silences) this.#leave('counting');
    if (this.#state !== 'paired') {
      this.#listener.unanswered(command, 1);
      return;
    }
    const last = this.#waiting.at(-1);
    if (this.#first < this.#waiting.length && last?.command === command && last.at === this.#readAt)
      last.count++;
    else this.#waiting.push({ command, at: this.#readAt, count: 1 });
  }

  #answered(failed: boolean, pushed: boolean): void {
    const run = this.#waiting[this.#first];
    const feed = run !== undefined && beginsFeed(run.command);
    // Nothing was asked where a server has no room for a client: it says so, and ends.
    if (run === undefined || (pushed && !feed)) return;
    this.#listener.answered(run.command, failed, this.#now() - run.at);
    if (--run.count === 0) this.#next();
    if (feed && !failed) this.#leave('counting');
  }

  #next(): void {
    this.#first++;
    if (this.#first === this.#waiting.length) {
      this.#waiting.length = 0;
      this.#first = 0;
    } else if (this.#first >= MAX_WAITING) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
  }

  #lose(why: 'commands' | 'answers' | 'pipeline'): void {
    this.#leave('lost');
    this.#listener.lost(why);
  }

  /** Whatever waits for an answer does so no more. */
  #leave(state: 'counting' | 'lost'): void {
    if (this.#state === 'lost') return;
    this.#state = state;
    this.#answers.stop();
    for (const { command, count } of this.#waiting.slice(this.#first))
      this.#listener.unanswered(command, count);
    this.#waiting = [];
    this.#first = 0;
  }
}
