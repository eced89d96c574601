import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ProbeAnswer, ProbeRequest } from './clients/probe-protocol.ts';
import { ManagedProcess } from './process.ts';

/** Bound on one command: holding thousands of connections takes seconds. */
const COMMAND_TIMEOUT_MS = 60_000;

/** Our side of the probe process: see clients/probe.ts. */
export class Probe {
  readonly #process: ManagedProcess;
  readonly #waiting = new Map<number, (answer: ProbeAnswer) => void>();
  #next = 1;

  constructor(namespace: string) {
    const program = fileURLToPath(new URL('./clients/probe.js', import.meta.url));
    this.#process = new ManagedProcess('probe', { namespace, part: 'load' }, [process.execPath, program]);
    createInterface({ input: this.#process.child.stdout! }).on('line', (line) => {
      const answer = JSON.parse(line) as ProbeAnswer;
      this.#waiting.get(answer.id)?.(answer);
    });
  }

  /** One request on a new connection; the whole answer. */
  async exchange(
    to: { readonly address: string; readonly port: number },
    path: string,
    close = false,
  ): Promise<{ status: number; body: string; bytes: number; local: string }> {
    const answer = await this.#ask({ op: 'exchange', host: to.address, port: to.port, path, close });
    return {
      status: answer.status ?? 0,
      body: answer.body ?? '',
      bytes: answer.bytes ?? 0,
      local: answer.local ?? '',
    };
  }

  /** Opens connections, makes one request on each and keeps them open. */
  async hold(to: { readonly address: string; readonly port: number }, count: number): Promise<void> {
    await this.#ask({ op: 'hold', host: to.address, port: to.port, path: '/', count });
  }

  /** Closes what is held. */
  async release(): Promise<void> {
    await this.#ask({ op: 'release', host: '', port: 0, path: '' });
  }

  async stop(): Promise<void> {
    await this.#process.stop();
  }

  async #ask(request: Omit<ProbeRequest, 'id'>): Promise<ProbeAnswer> {
    const id = this.#next++;
    const answer = await new Promise<ProbeAnswer>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`probe: no answer to ${request.op}`)),
        COMMAND_TIMEOUT_MS,
      );
      this.#waiting.set(id, (given) => {
        clearTimeout(timer);
        resolve(given);
      });
      this.#process.child.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
    });
    this.#waiting.delete(id);
    if (answer.error !== undefined)
      throw new Error(`${request.op} ${request.host}:${request.port}: ${answer.error}`);
    return answer;
  }
}
