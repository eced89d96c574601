import { CR, LF, SP, TARGET, TOKEN, VALUE } from './characters.ts';
import { MAX_METHOD } from './limits.ts';
import { HttpRefusal, type RefusalReason, type Side } from './refusal.ts';

/* Reads the first line of a head: request line or status line (RFC 9112, 3 and 4). */

const METHOD = 0;
const TARGET_START = 1;
const TARGET_REST = 2;
const VERSION = 3;
const AFTER_VERSION = 4;
const STATUS = 5;
const AFTER_STATUS = 6;
const REASON = 7;
const LINE_LF = 8;
const DONE = 9;

const HTTP_1 = Uint8Array.from('HTTP/1.', (each) => each.charCodeAt(0));

/** Reads one first line after the other; `begin` before each. Positions count from the beginning of the head. */
export class FirstLine {
  readonly #side: Side;
  readonly #most: number;
  #state: number = METHOD;
  /** Where the part being read begins. */
  #start = 0;

  /** End of the method, or begin of the status. */
  firstEnd = 0;
  /** End of the request target, or of the reason. */
  secondEnd = 0;
  minor: 0 | 1 = 1;

  /** `most`: bytes to the end of the request target, or of the reason. */
  constructor(side: Side, most: number) {
    this.#side = side;
    this.#most = most;
    this.begin();
  }

  /** Forgets what was read. */
  begin(): void {
    this.#state = this.#side === 'request' ? METHOD : VERSION;
    this.#start = 0;
  }

  /** The line, its end included, was read. */
  get done(): boolean {
    return this.#state === DONE;
  }

  #refuse(reason: RefusalReason): never {
    throw new HttpRefusal(this.#side, reason);
  }

  /**
   * Reads a part of the line, or as much of it as there is, in `b`, where the head begins at `base`, from `from` to `to`.
   * Returns the index after what was read; call again while there is more. Throws an {@link HttpRefusal}.
   */
  read(b: Uint8Array, base: number, from: number, to: number): number {
    let i = from;
    const start = base + this.#start;
    // One more than the bound is looked at: that byte is the one which is refused.
    const last = Math.min(to, base + this.#most + 1);
    switch (this.#state) {
      case METHOD: {
        while (i < to && TOKEN[b[i]!] === 1 && i - start <= MAX_METHOD) i++;
        if (i === to) break;
        if (i - start > MAX_METHOD) this.#refuse('method-unknown');
        if (b[i] !== SP || i === start) this.#refuse('request-line');
        this.firstEnd = i - base;
        i++;
        this.#state = TARGET_START;
        break;
      }
      case TARGET_START: {
        if (TARGET[b[i]!] !== 1) this.#refuse('request-line');
        this.#state = TARGET_REST;
        break;
      }
      case TARGET_REST: {
        while (i < last && TARGET[b[i]!] === 1) i++;
        if (i - base > this.#most) this.#refuse('start-line-too-long');
        if (i === to) break;
        if (b[i] !== SP) this.#refuse(b[i] === CR || b[i] === LF ? 'request-line' : 'target-invalid');
        this.secondEnd = i - base;
        i++;
        this.#start = i - base;
        this.#state = VERSION;
        break;
      }
      case VERSION: {
        i = this.#version(b, i, start, to);
        break;
      }
      case AFTER_VERSION: {
        if (this.#side === 'request') {
          if (b[i] !== CR) this.#refuse(b[i] === LF ? 'line-end' : 'request-line');
          this.#state = LINE_LF;
        } else {
          if (b[i] !== SP) this.#refuse('status-line');
          this.firstEnd = i + 1 - base;
          this.#start = i + 1 - base;
          this.#state = STATUS;
        }
        i++;
        break;
      }
      case STATUS: {
        // The first digit is not 0: there is no such class (RFC 9110, 15).
        const least = i === start ? 0x31 : 0x30;
        if (b[i]! < least || b[i]! > 0x39) this.#refuse('status-line');
        i++;
        if (i - start === 3) this.#state = AFTER_STATUS;
        break;
      }
      case AFTER_STATUS: {
        // Servers exist that leave out the space before a reason that is empty.
        this.secondEnd = i - base;
        if (b[i] === CR) this.#state = LINE_LF;
        else if (b[i] === SP) this.#state = REASON;
        else this.#refuse('status-line');
        i++;
        break;
      }
      case REASON: {
        while (i < last && VALUE[b[i]!] === 1) i++;
        if (i - base > this.#most) this.#refuse('status-line');
        if (i === to) break;
        if (b[i] !== CR) this.#refuse(b[i] === LF ? 'line-end' : 'status-line');
        this.secondEnd = i - base;
        i++;
        this.#state = LINE_LF;
        break;
      }
      case LINE_LF: {
        if (b[i] !== LF) this.#refuse('line-end');
        i++;
        this.#state = DONE;
        break;
      }
    }
    return i;
  }

  /** `HTTP/1.` and 0 or 1. Another number is a version, anything else is nonsense. */
  #version(b: Uint8Array, from: number, start: number, to: number): number {
    let i = from;
    while (i < to && i - start < HTTP_1.length && b[i] === HTTP_1[i - start]) i++;
    if (i === to) return i;
    const code = b[i]!;
    const place = i - start;
    const isDigit = code >= 0x30 && code <= 0x39;
    if (place !== HTTP_1.length || (code !== 0x30 && code !== 0x31)) {
      if (isDigit && (place === 5 || place === HTTP_1.length)) this.#refuse('version-unsupported');
      this.#refuse(this.#side === 'request' ? 'request-line' : 'status-line');
    }
    this.minor = code === 0x31 ? 1 : 0;
    this.#state = AFTER_VERSION;
    return i + 1;
  }
}
