import { knownCommand, MAX_NAME } from './commands.ts';

/*
 * What clients of Redis send: https://redis.io/docs/latest/develop/reference/protocol-spec, read as `networking.c` of Redis
 * reads it. No value is kept: lengths are counted, and of a command its name is looked at.
 */

/** Arguments of a command, and bytes of one: what Redis takes itself (`networking.c`, proto-max-bulk-len). */
const MAX_ARGUMENTS = 1024 * 1024;
const MAX_BULK = 512 * 1024 * 1024;
/** Bytes of an inline command (PROTO_INLINE_MAX_SIZE). */
const MAX_INLINE = 64 * 1024;
/** Digits of a number. */
const MAX_DIGITS = 10;

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HTAB = 0x09;
const STAR = 0x2a;
const DOLLAR = 0x24;
const MINUS = 0x2d;

const START = 0;
const COUNT = 1;
const COUNT_LF = 2;
const BULK = 3;
const LENGTH = 4;
const LENGTH_LF = 5;
const VALUE = 6;
const VALUE_CR = 7;
const VALUE_LF = 8;
const INLINE = 9;

/** Reads the commands of a connection, in pieces of any size. */
export class CommandReader {
  readonly #told: (command: string, silences: boolean) => void;
  readonly #word = Buffer.allocUnsafe(MAX_NAME);
  #wordLength = 0;
  #state = START;
  #number = 0;
  #digits = 0;
  #negative = false;
  /** Arguments of the command that are still to come, and where in it reading stands: 0 is the name. */
  #left = 0;
  #argument = 0;
  /** Bytes of the value that are still to come; of an inline command: that have come. */
  #bytes = 0;
  #wordDone = false;
  #command = '';
  #silences = false;

  /** Each command is told once, when all of it was read. `silences`: it tells the server not to answer (CLIENT REPLY). */
  constructor(told: (command: string, silences: boolean) => void) {
    this.#told = told;
  }

  /** Answers false when these are no commands; nothing can be read any more then. */
  push(bytes: Uint8Array): boolean {
    let i = 0;
    const to = bytes.length;
    while (i < to) {
      const byte = bytes[i]!;
      switch (this.#state) {
        case START:
          if (byte === STAR) {
            this.#beginNumber(COUNT);
            i++;
          } else {
            this.#state = INLINE;
            this.#bytes = 0;
            this.#beginWord();
          }
          break;
        case COUNT:
        case LENGTH:
          if (byte === CR && this.#digits > 0) this.#state += 1;
          else if (!this.#digit(byte)) return false;
          i++;
          break;
        case COUNT_LF:
          if (byte !== LF || !this.#counted()) return false;
          i++;
          break;
        case BULK:
          if (byte !== DOLLAR) return false;
          this.#beginNumber(LENGTH);
          i++;
          break;
        case LENGTH_LF:
          if (byte !== LF || this.#negative || this.#number > MAX_BULK) return false;
          this.#bytes = this.#number;
          this.#beginWord();
          this.#state = this.#bytes === 0 ? VALUE_CR : VALUE;
          i++;
          break;
        case VALUE:
          i = this.#value(bytes, i);
          break;
        case VALUE_CR:
          if (byte !== CR) return false;
          this.#state = VALUE_LF;
          i++;
          break;
        case VALUE_LF:
          if (byte !== LF) return false;
          this.#argumentEnds();
          i++;
          break;
        default:
          if (!this.#inline(byte)) return false;
          i++;
      }
    }
    return true;
  }

  #beginNumber(state: number): void {
    this.#state = state;
    this.#number = 0;
    this.#digits = 0;
    this.#negative = false;
  }

  #digit(byte: number): boolean {
    if (byte === MINUS && this.#digits === 0 && !this.#negative) {
      this.#negative = true;
      return true;
    }
    if (byte < 0x30 || byte > 0x39 || this.#digits === MAX_DIGITS) return false;
    this.#number = this.#number * 10 + byte - 0x30;
    this.#digits++;
    return true;
  }

  /** Nothing at all is asked by an empty command, and nothing answered. */
  #counted(): boolean {
    if (this.#number > MAX_ARGUMENTS) return false;
    const empty = this.#negative || this.#number === 0;
    this.#left = this.#number;
    this.#argument = 0;
    this.#silences = false;
    this.#state = empty ? START : BULK;
    return true;
  }

  #beginWord(): void {
    this.#wordLength = 0;
    this.#wordDone = false;
  }

  /** Takes a part of a value: the first one is the name, and the first after CLIENT says whether answers will come. */
  #value(bytes: Uint8Array, from: number): number {
    const taken = Math.min(this.#bytes, bytes.length - from);
    if (this.#argument === 0 || (this.#argument === 1 && this.#command === 'client')) {
      const room = Math.min(taken, MAX_NAME + 1 - this.#wordLength);
      for (let i = 0; i < room; i++) this.#letter(bytes[from + i]!);
    }
    this.#bytes -= taken;
    if (this.#bytes === 0) this.#state = VALUE_CR;
    return from + taken;
  }

  #letter(byte: number): void {
    if (this.#wordLength < MAX_NAME) this.#word[this.#wordLength] = byte;
    if (this.#wordLength <= MAX_NAME) this.#wordLength++;
  }

  #text(): string {
    return this.#wordLength > MAX_NAME ? '' : this.#word.toString('latin1', 0, this.#wordLength);
  }

  #argumentEnds(): void {
    if (this.#argument === 0) this.#command = knownCommand(this.#text());
    else if (this.#argument === 1 && this.#command === 'client')
      this.#silences = this.#text().toUpperCase() === 'REPLY';
    this.#argument++;
    if (--this.#left > 0) this.#state = BULK;
    else {
      this.#state = START;
      this.#told(this.#command, this.#silences);
    }
  }

  /** A command on a line of its own, as people type it. Its name ends at the first space. */
  #inline(byte: number): boolean {
    if (byte === LF) {
      if (this.#wordLength > 0) {
        const command = knownCommand(this.#text());
        // What follows is not looked at, so the worst is assumed.
        this.#told(command, command === 'client');
      }
      this.#state = START;
      return true;
    }
    if (++this.#bytes > MAX_INLINE || (byte < SP && byte !== CR && byte !== HTAB)) return false;
    if (byte === SP || byte === HTAB || byte === CR) this.#wordDone ||= this.#wordLength > 0;
    else if (!this.#wordDone) this.#letter(byte);
    return true;
  }
}
