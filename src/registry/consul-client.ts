import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { SecureContextOptions } from 'node:tls';
import type { Endpoint } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';

/*
 * The HTTP API of a Consul agent, as far as it is read: GET with blocking queries
 * (https://developer.hashicorp.com/consul/api-docs/features/blocking).
 */

/** Most bytes of one answer. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** Characters of a refusal that are shown. */
const MAX_REFUSAL = 200;
/** An idle connection is closed after this time, so that a client that is no longer used keeps none. */
const IDLE_MS = 10_000;
/** Questions that do not wait for a change, at once. */
const MAX_OPEN = 16;

/** TLS material, read from its files. */
export interface ConsulTls extends Pick<SecureContextOptions, 'ca' | 'cert' | 'key'> {
  readonly servername?: string | undefined;
}

export interface ConsulClientOptions {
  readonly address: Endpoint;
  readonly tls: ConsulTls | undefined;
  readonly token: string | undefined;
  readonly datacenter: string | undefined;
  readonly stale: boolean;
  /** Bound on connecting and one answer, milliseconds; that of a blocking query counts from the end of its wait. */
  readonly timeout: number;
}

export interface ConsulAnswer {
  readonly body: unknown;
  /** `X-Consul-Index`; undefined when it is no positive number, which documentation calls a mistake of Consul. */
  readonly index: number | undefined;
  /** `X-Consul-LastContact`: age of what a follower answered, milliseconds. */
  readonly lastContact: number;
}

/** Asks one agent. Every failure, and an answer without leader, is an error of code `registry`. */
export class ConsulClient {
  readonly #options: ConsulClientOptions;
  readonly #agent: HttpAgent;
  #open = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ConsulClientOptions) {
    this.#options = options;
    const kept = { keepAlive: true, maxFreeSockets: MAX_OPEN, timeout: IDLE_MS };
    this.#agent =
      options.tls === undefined ? new HttpAgent(kept) : new HttpsAgent({ ...kept, ...options.tls });
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The content now; at most {@link MAX_OPEN} at once. */
  async read(path: string, query: URLSearchParams, signal: AbortSignal): Promise<ConsulAnswer> {
    if (this.#open >= MAX_OPEN) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#open++;
    try {
      return await this.#get(path, query, this.#options.timeout, signal);
    } finally {
      this.#open--;
      this.#waiting.shift()?.();
    }
  }

  /** The content once it is another than at `index`, or after `wait` ms (Consul adds up to a sixteenth). */
  watch(
    path: string,
    query: URLSearchParams,
    index: number,
    wait: number,
    signal: AbortSignal,
  ): Promise<ConsulAnswer> {
    const all = new URLSearchParams(query);
    all.set('index', String(index));
    all.set('wait', `${wait}ms`);
    return this.#get(path, all, Math.ceil(wait + wait / 16) + this.#options.timeout, signal);
  }

  #get(path: string, query: URLSearchParams, bound: number, signal: AbortSignal): Promise<ConsulAnswer> {
    const { address, tls, token, datacenter, stale } = this.#options;
    const all = new URLSearchParams(query);
    if (datacenter !== undefined) all.set('dc', datacenter);
    if (stale) all.set('stale', '');
    const headers: Record<string, string> = { accept: 'application/json' };
    if (token !== undefined) headers['x-consul-token'] = token;
    const where = { host: address.ip, port: address.port, path: `${path}?${all}`, headers, signal };
    return new Promise((resolve, reject) => {
      const request = (tls === undefined ? httpRequest : httpsRequest)({ ...where, agent: this.#agent });
      const fail = (error: unknown) => {
        clearTimeout(timer);
        request.destroy();
        reject(error instanceof MeshError ? error : failure(`${path}: ${reasonOf(error)}`));
      };
      const timer = setTimeout(() => fail(failure(`${path}: no answer within ${bound} ms`)), bound);
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('error', fail);
        response.on('close', () => {
          // Of a whole answer the connection is another request's already.
          if (!response.complete) fail(failure(`${path}: the answer has broken off`));
        });
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          if (length > MAX_ANSWER_BYTES) fail(failure(`${path}: more than ${MAX_ANSWER_BYTES} bytes`));
          else chunks.push(chunk);
        });
        response.on('end', () => {
          if (!response.complete) return;
          clearTimeout(timer);
          try {
            resolve(answerOf(path, response, Buffer.concat(chunks).toString()));
          } catch (error) {
            reject(error);
          }
        });
      });
      request.end();
    });
  }
}

function answerOf(path: string, response: IncomingMessage, text: string): ConsulAnswer {
  if (response.statusCode !== 200) {
    const why = JSON.stringify(text.slice(0, MAX_REFUSAL).trim());
    throw failure(`${path}: status ${response.statusCode}, ${why}`);
  }
  // A server that was started anew answers stale reads before it has heard of anything: that is no absence.
  if (response.headers['x-consul-knownleader'] === 'false') throw failure(`${path}: Consul has no leader`);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw failure(`${path}: the answer is no JSON`);
  }
  const index = numberIn(response, 'x-consul-index');
  return {
    body,
    index: index > 0 ? index : undefined,
    lastContact: numberIn(response, 'x-consul-lastcontact'),
  };
}

function numberIn(response: IncomingMessage, name: string): number {
  const value = response.headers[name];
  return typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : 0;
}

function failure(text: string): MeshError {
  return new MeshError('registry', 'registry', text);
}
