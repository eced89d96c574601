import { join } from 'node:path';
import { type Running, waitFor } from './process.ts';
import { type Host, REPOSITORY } from './topology.ts';

const PROGRAM = join(REPOSITORY, 'build/test/support/web.entry.js');

/** Starts the HTTP server of web.entry.ts on a host. */
export async function webServer(host: Host, port: number, name: string): Promise<Running> {
  const running = host.spawn(name, [process.execPath, PROGRAM, 'serve', `${port}`, name]);
  await host.listening(port, running);
  return running;
}

/** So many servers of web.entry.ts in one process, from a port on; the last of them answers after `lateMs`. */
export async function webFleet(
  host: Host,
  port: number,
  size: number,
  name: string,
  lateMs: number,
): Promise<Running> {
  const command = [process.execPath, PROGRAM, 'fleet', `${port}`, `${size}`, name, `${lateMs}`];
  const running = host.spawn(name, command);
  await host.listening(port + size - 1, running);
  return running;
}

/** What a WebSocket showed. */
export interface Talk {
  readonly echoed: number;
  /** The status that it was closed with. */
  readonly code: number;
}

/** A WebSocket with so many messages, the last of 2 ** (messages - 1) bytes, each of which must come back. */
export async function talk(host: Host, to: string, port: number, messages: number): Promise<Talk> {
  const command = [process.execPath, PROGRAM, 'talk', to, `${port}`, `${messages}`];
  return JSON.parse(await host.must(command)) as Talk;
}

/** What {@link Requests} showed. */
export interface RequestsDone {
  /** Answers by the name of the server. */
  readonly by: Readonly<Record<string, number>>;
  /** How often each failure came. */
  readonly failures: Readonly<Record<string, number>>;
  /** All of them, those that took a second or longer, and how long it all took, in ms. */
  readonly done: number;
  readonly late: number;
  readonly took: number;
}

/** GETs on connections that stay, one after the other, beside the test. */
export class Requests {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  static async start(host: Host, to: string, port: number, parallel: number, path = '/'): Promise<Requests> {
    const command = [process.execPath, PROGRAM, 'load', to, `${port}`, `${parallel}`, path];
    const requests = new Requests(host.spawn('load', command));
    await requests.progress(100);
    return requests;
  }

  /** Waits until so many more were made, to a hundred. */
  async progress(count: number): Promise<void> {
    const enough = this.#running.output.length + Math.ceil(count / 100) * 'progress\n'.length;
    await waitFor('requests are made', () => this.#running.output.length >= enough, { alive: this.#running });
  }

  async stop(): Promise<RequestsDone> {
    await this.#running.stop();
    const line = await waitFor('the result', () => /^\{.*\}$/m.exec(this.#running.output)?.[0]);
    return JSON.parse(line) as RequestsDone;
  }
}

/** A reader that stands still in the middle of an answer. */
export class StandingReader {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  /** Resolves once the answer has begun; nothing more of it is read from then on. */
  static async start(host: Host, to: string, port: number, bytes: number): Promise<StandingReader> {
    const command = [process.execPath, PROGRAM, 'slow', to, `${port}`, `${bytes}`];
    const running = host.spawn('reader', command);
    await waitFor('an answer begins', () => running.output.includes('begun'), { alive: running });
    return new StandingReader(running);
  }

  /** Reads the rest as fast as it comes. */
  async finish(): Promise<{ readonly bytes: number; readonly match: boolean }> {
    const code = await this.#running.stop('SIGTERM', 30_000);
    const line = /^\{.*\}$/m.exec(this.#running.output)?.[0];
    if (code !== 0 || line === undefined) throw new Error(`it ended with ${code}: ${this.#running.output}`);
    return JSON.parse(line) as { readonly bytes: number; readonly match: boolean };
  }
}

/** A GET now and then, on one connection as long as it stays. */
export class Watch {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  static start(host: Host, to: string, port: number): Watch {
    return new Watch(host.spawn('watch', [process.execPath, PROGRAM, 'watch', to, `${port}`, '20']));
  }

  /** Waits for an answer from now on: its status, and its `mesh-error` where it has one. */
  async sees(what: string): Promise<void> {
    const from = this.#running.output.length;
    await waitFor(`a GET sees ${what}`, () => this.#running.output.slice(from).includes(`saw ${what}\n`), {
      alive: this.#running,
    });
  }

  /** How many connections it took. */
  async stop(): Promise<number> {
    await this.#running.stop();
    const line = /^\{.*\}$/m.exec(this.#running.output)?.[0] ?? '{}';
    return (JSON.parse(line) as { connections: number }).connections;
  }
}
