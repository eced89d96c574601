import type { Fields } from '../../../src/http1/fields.ts';
import type { Http1Limits } from '../../../src/http1/limits.ts';
import type { MessageSink } from '../../../src/http1/message-sink.ts';
import { HttpRefusal, type RefusalReason } from '../../../src/http1/refusal.ts';
import type { RequestHead } from '../../../src/http1/request-head.ts';
import { RequestParser } from '../../../src/http1/request-parser.ts';
import type { Asked, ResponseHead } from '../../../src/http1/response-head.ts';
import { ResponseParser } from '../../../src/http1/response-parser.ts';

/** A message as a parser told it, in a form that any two parsers can be compared in. */
export interface Message {
  /** Method and target, or status and reason. */
  readonly first: string;
  readonly minor: number;
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly keepAlive: boolean;
  /** latin1. */
  content: string;
  trailers: readonly (readonly [name: string, value: string])[];
  complete: boolean;
}

/** What became of some bytes. */
export interface Reading<Head> {
  readonly messages: Message[];
  readonly heads: Head[];
  /** Bytes behind the last message that was complete, and that the parser did not take. */
  rest: string;
  refusal: RefusalReason | undefined;
}

/** Where bytes are cut into pieces, in ascending order. */
export type Cuts = readonly number[];

function pairs(fields: Fields): [string, string][] {
  return Array.from({ length: fields.count }, (_, index) => [fields.rawName(index), fields.value(index)]);
}

function recorder<Head extends RequestHead | ResponseHead>(
  reading: Reading<Head>,
  first: (head: Head) => string,
): MessageSink<Head> {
  return {
    head: (head) => {
      reading.heads.push(head);
      reading.messages.push({
        first: first(head),
        minor: head.minor,
        fields: pairs(head.fields),
        keepAlive: head.keepAlive,
        content: '',
        trailers: [],
        complete: 'interim' in head && head.interim,
      });
    },
    content: (piece) => {
      reading.messages.at(-1)!.content += Buffer.from(piece).toString('latin1');
    },
    end: (trailers) => {
      const message = reading.messages.at(-1)!;
      message.trailers = trailers === undefined ? [] : pairs(trailers);
      message.complete = true;
    },
  };
}

/** Calls `push` for each piece, from memory that is overwritten afterwards; returns false when it stopped early. */
function inPieces(bytes: Buffer, cuts: Cuts, push: (piece: Buffer) => number): string {
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    if (to <= from) continue;
    const piece = Buffer.from(bytes.subarray(from, to));
    const taken = push(piece);
    piece.fill(0xff);
    if (taken < to - from) return bytes.toString('latin1', from + taken);
    from = to;
  }
  return '';
}

function guarded<Head>(reading: Reading<Head>, action: () => void): Reading<Head> {
  try {
    action();
  } catch (error) {
    if (!(error instanceof HttpRefusal)) throw error;
    reading.refusal = error.reason;
  }
  return reading;
}

/** Reads a pipeline of requests, up to the first that ends its connection or asks to leave HTTP. */
export function readRequests(bytes: Buffer, cuts: Cuts = [], limits?: Http1Limits): Reading<RequestHead> {
  const reading: Reading<RequestHead> = { messages: [], heads: [], rest: '', refusal: undefined };
  const parser = new RequestParser(
    recorder(reading, (head) => `${head.method} ${head.target}`),
    limits,
  );
  return guarded(reading, () => {
    reading.rest = inPieces(bytes, cuts, (piece) => {
      let at = 0;
      while (at < piece.length) {
        if (parser.done) {
          const head = reading.heads.at(-1)!;
          // Node stops behind any request that would like to switch, with content or without.
          if ((head.connection.upgrade && head.fields.has('upgrade')) || !parser.next()) break;
        }
        at = parser.push(piece, at);
      }
      return at;
    });
  });
}

/** Reads the answer to one request; `ended`: the server closes behind the bytes. */
export function readResponse(
  bytes: Buffer,
  asked: Asked,
  cuts: Cuts = [],
  ended = true,
  onTrailers?: (trailers: Fields) => void,
): Reading<ResponseHead> & { reusable: boolean } {
  const reading: Reading<ResponseHead> = { messages: [], heads: [], rest: '', refusal: undefined };
  const sink = recorder(reading, (head: ResponseHead) => `${head.status} ${head.reason}`);
  const parser = new ResponseParser({
    ...sink,
    end: (trailers) => {
      sink.end(trailers);
      if (trailers !== undefined) onTrailers?.(trailers);
    },
  });
  parser.begin(asked);
  let reusable = false;
  guarded(reading, () => {
    reading.rest = inPieces(bytes, cuts, (piece) => parser.push(piece));
    reusable = parser.reusable;
    if (ended) parser.finish();
  });
  return { ...reading, reusable };
}
