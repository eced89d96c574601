import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import { Agent as SecureAgent, request as secureRequest } from 'node:https';
import { MeshError, reasonOf } from '../model/errors.ts';
import {
  LineSplitter,
  MAX_ANSWER_BYTES,
  type RangeAnswer,
  readFailure,
  readRange,
  readToken,
  readWatch,
  type WatchAnswer,
} from './etcd-answers.ts';
import type { TlsTexts } from './tls-files.ts';

/** Bytes that are read of an answer that refuses. */
const MAX_FAILURE_BYTES = 16 * 1024;

interface EtcdClientOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: TlsTexts | undefined;
  readonly credentials: { readonly user: string; readonly password: string } | undefined;
  /** Bound on one answer, and on the beginning of a watch, milliseconds. */
  readonly timeout: number;
}

export interface RangeQuestion {
  readonly key: Buffer;
  readonly end: Buffer;
  /** Most keys of the answer. */
  readonly limit: number;
  /** Of which moment; undefined: of now. */
  readonly revision: bigint | undefined;
  readonly keysOnly: boolean;
}

/** An answer has more bytes than the bound: fewer keys have to be asked for. */
export class AnswerTooLarge extends MeshError {
  constructor() {
    super('protocol', 'registry', `etcd: an answer has more than ${MAX_ANSWER_BYTES} bytes`);
  }
}

/** Questions to one etcd server through its JSON gateway, each with a bound on time and bytes. Errors are MeshErrors. */
export class EtcdClient {
  readonly #options: EtcdClientOptions;
  readonly #agent: Agent;
  #token: string | undefined;

  constructor(options: EtcdClientOptions) {
    this.#options = options;
    const settings = { keepAlive: true, keepAliveMsecs: 10_000, maxSockets: 4 };
    this.#agent =
      options.tls === undefined ? new Agent(settings) : new SecureAgent({ ...settings, ...options.tls });
  }

  /** Reads keys from `key` to below `end`, in order. */
  async range(question: RangeQuestion, signal: AbortSignal): Promise<RangeAnswer> {
    const { key, end, limit, revision, keysOnly } = question;
    const fields = {
      key: key.toString('base64'),
      range_end: end.toString('base64'),
      limit: String(limit),
      ...(revision === undefined ? {} : { revision: String(revision) }),
      ...(keysOnly ? { keys_only: true } : {}),
    };
    return this.#bounded(signal, async (bounded) => {
      const response = await this.#authorized('/v3/kv/range', fields, bounded);
      return readRange(await textOf(response, MAX_ANSWER_BYTES));
    });
  }

  /** Changes of these keys from a revision on, until the signal aborts; that, and everything that goes wrong, is thrown. */
  async *watch(
    question: { readonly key: Buffer; readonly end: Buffer; readonly from: bigint },
    signal: AbortSignal,
  ): AsyncGenerator<WatchAnswer, never> {
    const create = {
      key: question.key.toString('base64'),
      range_end: question.end.toString('base64'),
      start_revision: String(question.from),
      progress_notify: true,
      fragment: true,
    };
    const begun = new AbortController();
    const timer = setTimeout(() => begun.abort(this.#late()), this.#options.timeout);
    const either = AbortSignal.any([signal, begun.signal]);
    try {
      const response = await this.#authorized('/v3/watch', { create_request: create }, either);
      const lines = new LineSplitter();
      for await (const chunk of response) {
        for (const line of lines.push(chunk as Buffer)) {
          clearTimeout(timer);
          yield readWatch(line);
        }
      }
      throw new MeshError('registry', 'registry', 'etcd ended the watch', { retry: 'safe' });
    } catch (error) {
      throw failureOf(error, either);
    } finally {
      clearTimeout(timer);
      // Ends the request, also when nobody wants more answers.
      begun.abort(new MeshError('registry', 'agent', 'closed'));
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  /** Asks with the token of the user; a token that is none any more is replaced once. */
  async #authorized(path: string, body: object, signal: AbortSignal): Promise<IncomingMessage> {
    const fresh = this.#token === undefined;
    if (this.#options.credentials !== undefined) await this.#authenticate(signal);
    let response = await this.#post(path, body, signal);
    if (response.statusCode === 401 && this.#options.credentials !== undefined && !fresh) {
      response.destroy();
      this.#token = undefined;
      await this.#authenticate(signal);
      response = await this.#post(path, body, signal);
    }
    if (response.statusCode !== 200) throw await refusal(response);
    return response;
  }

  async #authenticate(signal: AbortSignal): Promise<void> {
    if (this.#token !== undefined || this.#options.credentials === undefined) return;
    const { user: name, password } = this.#options.credentials;
    const response = await this.#post('/v3/auth/authenticate', { name, password }, signal);
    if (response.statusCode !== 200) throw await refusal(response);
    this.#token = readToken(await textOf(response, MAX_FAILURE_BYTES));
  }

  #post(path: string, body: object, signal: AbortSignal): Promise<IncomingMessage> {
    const { host, port, tls } = this.#options;
    const content = Buffer.from(JSON.stringify(body));
    const headers = {
      'content-type': 'application/json',
      'content-length': content.length,
      ...(this.#token === undefined ? {} : { authorization: this.#token }),
    };
    const options = { host, port, path, method: 'POST', headers, agent: this.#agent, signal };
    return new Promise((resolve, reject) => {
      const sent: ClientRequest = tls === undefined ? request(options) : secureRequest(options);
      sent.on('response', resolve);
      // Stays for the whole life of the request: what comes after the answer began is read there.
      sent.on('error', reject);
      sent.end(content);
    });
  }

  async #bounded<T>(signal: AbortSignal, ask: (bounded: AbortSignal) => Promise<T>): Promise<T> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(this.#late()), this.#options.timeout);
    const either = AbortSignal.any([signal, late.signal]);
    try {
      return await ask(either);
    } catch (error) {
      throw failureOf(error, either);
    } finally {
      clearTimeout(timer);
    }
  }

  #late(): MeshError {
    const text = `no answer within ${this.#options.timeout} ms`;
    return new MeshError('timeout', 'registry', text, { retry: 'safe' });
  }
}

async function textOf(response: IncomingMessage, most: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response) {
    length += (chunk as Buffer).length;
    // Leaving the loop ends the connection.
    if (length > most) throw new AnswerTooLarge();
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString();
}

async function refusal(response: IncomingMessage): Promise<MeshError> {
  const text = await textOf(response, MAX_FAILURE_BYTES);
  return new MeshError('registry', 'registry', readFailure(response.statusCode ?? 0, text));
}

function failureOf(error: unknown, signal: AbortSignal): MeshError {
  const reason: unknown = signal.aborted ? signal.reason : error;
  if (reason instanceof MeshError) return reason;
  // A name with several addresses fails with all their errors and no words of its own.
  const inner = reason instanceof AggregateError ? reason.errors[0] : reason;
  return new MeshError('registry', 'registry', reasonOf(inner), { retry: 'safe', cause: error });
}
