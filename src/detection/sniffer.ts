import { CR, LF } from '../http1/characters.ts';
import { FirstLine } from '../http1/first-line.ts';
import { DEFAULT_LIMITS, MAX_METHOD } from '../http1/limits.ts';
import { beginsMethod, knownMethod } from '../http1/methods.ts';
import { HttpRefusal } from '../http1/refusal.ts';
import { beginsHello, MAX_HELLO, readHello } from './client-hello.ts';

/** What a caller's first bytes say. `name`: of TLS, the server that is asked for, if that was wanted and is there. */
export type Spoken =
  | { readonly protocol: 'http' | 'http2' | 'other' }
  | { readonly protocol: 'tls'; readonly name: string | undefined };

/** Most bytes that are looked at: the longest line, or hello, that could still be one. */
export const MAX_SNIFFED = MAX_HELLO;

/** The first bytes of an HTTP/2 connection (RFC 9113, 3.4). */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

const HTTP: Spoken = { protocol: 'http' };
const HTTP2: Spoken = { protocol: 'http2' };
const OTHER: Spoken = { protocol: 'other' };
const NAMELESS: Spoken = { protocol: 'tls', name: undefined };

/**
 * Finds out from a caller's first bytes which protocol it speaks. HTTP/1.1 is what begins with a whole request line that
 * the codec takes: anything looser might be somebody else's, and is carried as it is.
 */
export class Sniffer {
  readonly #line = new FirstLine('request', DEFAULT_LIMITS.startLine);
  /** Names in the hello of TLS are wanted: all of it is waited for. */
  readonly #names: boolean;
  /** What came before, where a hello is read from all of it. */
  #kept: Buffer | undefined;
  /** Bytes that came before. */
  #length = 0;
  /** Where the request line begins: behind an empty line, which some send first. */
  #lineAt = 0;
  #method = '';
  #mayBeTls = true;
  #mayBeHttp2 = true;
  #mayBeHttp = true;

  constructor(names: boolean) {
    this.#names = names;
  }

  /** Looks at what came next; undefined while it may be more than one thing, or none yet. */
  push(bytes: Uint8Array): Spoken | undefined {
    if (bytes.length === 0) return undefined;
    const spoken =
      (this.#mayBeTls ? this.#tls(bytes) : undefined) ??
      (this.#mayBeHttp2 ? this.#http2(bytes) : undefined) ??
      (this.#mayBeHttp ? this.#http(bytes) : undefined);
    this.#length += bytes.length;
    if (spoken !== undefined) return spoken;
    const open = this.#mayBeTls || this.#mayBeHttp2 || this.#mayBeHttp;
    return open && this.#length < MAX_SNIFFED ? undefined : OTHER;
  }

  #tls(bytes: Uint8Array): Spoken | undefined {
    const all = this.#kept === undefined ? bytes : Buffer.concat([this.#kept, bytes]);
    const begins = beginsHello(all);
    if (begins === false) {
      this.#mayBeTls = false;
      this.#kept = undefined;
      return undefined;
    }
    if (begins === true && !this.#names) return NAMELESS;
    const found = readHello(all);
    if (found.kind === 'hello') return { protocol: 'tls', name: found.name };
    // It begins as a hello, and is one that nobody here can read.
    if (found.kind === 'other') return NAMELESS;
    this.#kept = this.#kept === undefined ? Buffer.from(bytes) : (all as Buffer);
    return undefined;
  }

  #http2(bytes: Uint8Array): Spoken | undefined {
    const to = Math.min(this.#length + bytes.length, PREFACE.length);
    for (let at = this.#length; at < to; at++) {
      if (bytes[at - this.#length] === PREFACE[at]) continue;
      this.#mayBeHttp2 = false;
      return undefined;
    }
    return to === PREFACE.length ? HTTP2 : undefined;
  }

  #http(bytes: Uint8Array): Spoken | undefined {
    let at = 0;
    while (at < bytes.length && this.#length + at === this.#lineAt && this.#lineAt < 2) {
      const wanted = this.#lineAt === 0 ? CR : LF;
      if (bytes[at] !== wanted) {
        this.#mayBeHttp = this.#lineAt === 0;
        break;
      }
      at++;
      this.#lineAt++;
    }
    if (!this.#mayBeHttp || at === bytes.length || !this.#methodFits(bytes, at)) return undefined;
    return this.#readLine(bytes, at);
  }

  /** Whether what stands before the first space is, or may become, a method. */
  #methodFits(bytes: Uint8Array, from: number): boolean {
    if (this.#method.endsWith(' ')) return true;
    let at = from;
    while (at < bytes.length && !this.#method.endsWith(' ') && this.#method.length <= MAX_METHOD)
      this.#method += String.fromCharCode(bytes[at++]!);
    this.#mayBeHttp = this.#method.endsWith(' ')
      ? knownMethod(this.#method, this.#method.length - 1, DEFAULT_LIMITS.methods) !== undefined
      : beginsMethod(this.#method);
    return this.#mayBeHttp;
  }

  #readLine(bytes: Uint8Array, from: number): Spoken | undefined {
    const base = this.#lineAt - this.#length;
    const line = this.#line;
    try {
      for (let at = from; at < bytes.length; ) {
        at = line.read(bytes, base, at, bytes.length);
        if (line.done) return HTTP;
      }
    } catch (error) {
      if (!(error instanceof HttpRefusal)) throw error;
      this.#mayBeHttp = false;
    }
    return undefined;
  }
}
