import { request } from 'node:http';
import { adminSocket, type ErrorAnswer } from '../admin/api.ts';
import { CliError, type ExitCode, exitCodes } from './context.ts';

/** How long the daemon may take: its own bound on a request is 30 s. */
const ANSWER_MS = 35_000;
/** Most bytes of an answer: a list of 10,000 connections has 4 MB, a full catalogue's addresses 40. */
const MOST_BYTES = 64 * 1024 * 1024;

/** One answer, whatever its status. */
interface Reply {
  readonly status: number;
  readonly body: unknown;
}

/** Talks to the daemon of this host over its unix socket. */
export class DaemonClient {
  readonly #socket: string;

  readonly #answerMs: number;

  /** @param answerMs bound on each answer. */
  constructor(runtimeDirectory: string, answerMs: number = ANSWER_MS) {
    this.#socket = adminSocket(runtimeDirectory);
    this.#answerMs = answerMs;
  }

  /** The answer to a GET; throws a CliError when the daemon cannot be reached or refuses. */
  async get<T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    return this.#expect<T>(await this.ask('GET', path, parameters));
  }

  async post<T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    return this.#expect<T>(await this.ask('POST', path, parameters));
  }

  /** The reply as it is, also a refusal. */
  ask(method: string, path: string, parameters: Readonly<Record<string, string>> = {}): Promise<Reply> {
    const query = new URLSearchParams(parameters).toString();
    const target = query === '' ? path : `${path}?${query}`;
    return new Promise((resolve, reject) => {
      const sent = request(
        { socketPath: this.#socket, path: target, method, headers: { host: 'localhost' }, agent: false },
        (response) => {
          const chunks: Buffer[] = [];
          let size = 0;
          response.on('data', (chunk: Buffer) => {
            size += chunk.length;
            if (size > MOST_BYTES) sent.destroy(new Error(`an answer of more than ${MOST_BYTES} bytes`));
            else chunks.push(chunk);
          });
          response.on('error', (error) => reject(this.#unreachable(error)));
          response.on('end', () => {
            try {
              const body: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
              resolve({ status: response.statusCode ?? 0, body });
            } catch {
              reject(this.#unreachable(new Error('an answer that is not JSON')));
            }
          });
        },
      );
      sent.setTimeout(this.#answerMs, () =>
        sent.destroy(new Error(`no answer within ${this.#answerMs / 1000} s`)),
      );
      sent.on('error', (error) => reject(this.#unreachable(error)));
      sent.end();
    });
  }

  #expect<T>({ status, body }: Reply): T {
    if (status >= 200 && status < 300) return body as T;
    const { error } = body as Partial<ErrorAnswer>;
    const codes: Partial<Record<number, ExitCode>> = { 400: exitCodes.usage, 422: exitCodes.configuration };
    const code = codes[status] ?? exitCodes.failed;
    throw new CliError(code, error?.message ?? `the daemon answered with status ${status}`);
  }

  #unreachable(error: NodeJS.ErrnoException): CliError {
    const at = `the daemon does not answer on ${this.#socket}`;
    switch (error.code) {
      case 'ENOENT':
      case 'ECONNREFUSED':
        return new CliError(exitCodes.unreachable, `${at}: it is not running`, 'systemctl status mesh-node');
      case 'EACCES':
        return new CliError(
          exitCodes.unreachable,
          `${at}: permission denied`,
          'run it as root or as a member of the group mesh-node',
        );
      default:
        return new CliError(exitCodes.unreachable, `${at}: ${error.message}`);
    }
  }
}
