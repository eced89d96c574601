import { createRequire } from 'node:module';
import type { Message } from '../unit/http1/record.ts';

/*
 * Node's own parser (llhttp, as `node:http` uses it: strict), reached below `node:http`, where its events can be seen one
 * by one. It is what the codec is compared with.
 */

interface Binding {
  initialize(type: number, resource: object, maxHeaderSize: number, lenient: number): void;
  execute(bytes: Buffer): number | Error;
  finish(): Error | undefined;
  [event: number]: unknown;
}
interface Common {
  readonly HTTPParser: {
    new (): Binding;
    readonly REQUEST: number;
    readonly RESPONSE: number;
    readonly kOnHeaders: number;
    readonly kOnHeadersComplete: number;
    readonly kOnBody: number;
    readonly kOnMessageComplete: number;
  };
  readonly methods: readonly string[];
}
const { HTTPParser, methods } = createRequire(import.meta.url)('_http_common') as Common;

const MAX_HEAD = 256 * 1024;

export interface NodeReading {
  readonly messages: Message[];
  /** Why it went no further; undefined when it took everything, or left HTTP. */
  readonly refusal: string | undefined;
}

/** HTTP_QUERY of llhttp: behind the methods of RTSP, which `methods` leaves out. */
const QUERY = 46;

function methodOf(number: number): string | undefined {
  return number === QUERY ? 'QUERY' : methods[number];
}

function toPairs(flat: readonly string[]): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index]!, flat[2 * index + 1]!]);
}

/** Reads `bytes` as requests, or as answers to a request of the method `answersTo`, after which the server closes. */
export function readWithNode(bytes: Buffer, answersTo?: string): NodeReading {
  const parser = new HTTPParser();
  const isRequest = answersTo === undefined;
  parser.initialize(isRequest ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, MAX_HEAD, 0);
  const messages: Message[] = [];
  let flushed: string[] = [];
  let url = '';
  let inHead = true;
  parser[HTTPParser.kOnHeaders] = (headers: string[], target: string) => {
    flushed.push(...headers);
    url += inHead ? target : '';
  };
  parser[HTTPParser.kOnHeadersComplete] = (
    _major: number,
    minor: number,
    headers: string[] | undefined,
    method: number,
    target: string | undefined,
    status: number,
    reason: string,
    _upgrade: boolean,
    keepAlive: boolean,
  ) => {
    messages.push({
      first: isRequest ? `${methodOf(method)} ${target ?? url}` : `${status} ${reason}`,
      minor,
      fields: toPairs(headers ?? flushed),
      keepAlive,
      content: '',
      trailers: [],
      complete: false,
    });
    flushed = [];
    url = '';
    inHead = false;
    // 0: content comes before the other protocol, as where nobody listens for `upgrade`.
    if (isRequest) return 0;
    if (status === 101 || (answersTo === 'CONNECT' && status >= 200 && status < 300)) return 2;
    return answersTo === 'HEAD' ? 1 : 0;
  };
  parser[HTTPParser.kOnBody] = (piece: Buffer) => {
    messages.at(-1)!.content += piece.toString('latin1');
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    const message = messages.at(-1)!;
    message.trailers = toPairs(flushed);
    message.complete = true;
    flushed = [];
    inHead = true;
  };
  const result = parser.execute(bytes);
  if (result instanceof Error) return { messages, refusal: (result as Error & { code: string }).code };
  const end = isRequest ? undefined : parser.finish();
  return { messages, refusal: end instanceof Error ? (end as Error & { code: string }).code : undefined };
}
