import { join } from 'node:path';
import { type Running, waitFor } from './process.ts';
import { type Host, REPOSITORY } from './topology.ts';

const PROGRAM = join(REPOSITORY, 'build/test/support/traffic.entry.js');

/** What a transfer showed. */
export interface Transfer {
  readonly bytes: number;
  readonly ms: number;
  /** The SHA-256 of both ends is the same. */
  readonly match: boolean;
}

/** Starts the traffic server of traffic.entry.ts on a host. */
export async function trafficServer(host: Host, port: number): Promise<Running> {
  const running = host.spawn('traffic', [process.execPath, PROGRAM, 'serve', `${port}`]);
  await host.listening(port, running);
  return running;
}

/** What `ping` showed, in µs. */
export interface Pings {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** What `crowd` showed. */
export interface Crowd {
  readonly count: number;
  readonly echoed: number;
  readonly openAtOnce: number;
  readonly echoMs: number;
  /** How often each error came. */
  readonly failures: Readonly<Record<string, number>>;
}

/** What `load` showed when it was asked to end. */
export interface Load {
  readonly done: number;
  /** The longest connection, failed ones included. */
  readonly worstMs: number;
  readonly failures: Readonly<Record<string, number>>;
}

function client(verb: string, to: string, port: number, amounts: readonly number[]): string[] {
  return [process.execPath, PROGRAM, verb, to, `${port}`, ...amounts.map(String)];
}

/** Runs a client of traffic.entry.ts to its end. */
export async function traffic<T>(
  host: Host,
  verb: 'up' | 'down' | 'ping' | 'crowd',
  to: string,
  port: number,
  ...amounts: readonly number[]
): Promise<T> {
  return JSON.parse(await host.must(client(verb, to, port, amounts), { timeoutMs: 90_000 })) as T;
}

/** One connection with one echo; the caller says nothing for the first `waitMs`. */
export function knock(host: Host, to: string, port: number, waitMs = 0): Promise<Crowd> {
  return traffic<Crowd>(host, 'crowd', to, port, 1, waitMs);
}

/** A connection that lives beside the test, and tells whether it does. */
export class Held {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  /** Resolves once it has had its first echo. */
  static async open(host: Host, to: string, port: number): Promise<Held> {
    const held = new Held(host.spawn('hold', client('hold', to, port, [20])));
    await held.alive();
    return held;
  }

  /** How it ended; undefined while it lives. */
  get lost(): string | undefined {
    return /^lost (.*)$/m.exec(this.#running.output)?.[1];
  }

  get #echoes(): number {
    return this.#running.output.split('echo\n').length - 1;
  }

  /** Waits for bytes that go there and back from now on. */
  async alive(): Promise<void> {
    // The first one may have been under way already.
    const enough = this.#echoes + 2;
    await waitFor('an echo on the connection that is held', () => this.#echoes >= enough, {
      alive: this.#running,
    });
  }

  /** Waits until it has ended by itself; how. */
  ended(timeoutMs?: number): Promise<string> {
    return waitFor('the held connection ends', () => this.lost, timeoutMs === undefined ? {} : { timeoutMs });
  }

  /** Ends it in order. */
  async close(): Promise<void> {
    await this.#running.stop();
  }
}

/** A transfer that goes on beside the test until it is told to come to its end. */
export class Trickle {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  /** So many bytes from the server, at so many each second. */
  static start(host: Host, to: string, port: number, bytes: number, rate: number): Trickle {
    return new Trickle(host.spawn('slow', client('slow', to, port, [bytes, 1, rate])));
  }

  /** It still has bytes to come. */
  get running(): boolean {
    return this.#running.running;
  }

  /** Takes the rest as fast as it comes. */
  async finish(): Promise<Transfer> {
    const code = await this.#running.stop('SIGTERM', 20_000);
    if (code !== 0) throw new Error(`the transfer ended with ${code}: ${this.#running.output}`);
    const [transfer] = JSON.parse(this.#running.output) as Transfer[];
    return transfer!;
  }
}

/** Connections one after the other, beside the test. */
export class Loading {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  static async start(host: Host, to: string, port: number, parallel: number): Promise<Loading> {
    const loading = new Loading(host.spawn('load', client('load', to, port, [parallel])));
    await loading.progress();
    return loading;
  }

  /** Waits until some more connections were made. */
  async progress(): Promise<void> {
    const before = this.#running.output.length;
    await waitFor('connections are made', () => this.#running.output.length > before + 30, {
      alive: this.#running,
    });
  }

  async stop(): Promise<Load> {
    await this.#running.stop();
    const line = await waitFor('the result', () => /^\{.*\}$/m.exec(this.#running.output)?.[0]);
    return JSON.parse(line) as Load;
  }
}

/** One connection of a {@link Beat}. */
interface Call {
  /** When it began; milliseconds since the epoch. */
  readonly at: number;
  readonly ms: number;
  readonly ok: boolean;
}

/** A short connection at every beat, beside the test, whatever became of those before. */
export class Beat {
  readonly #running: Running;
  readonly #goodMs: number;
  readonly #calls: Call[] = [];
  /** Those that are not over, by their beginning. */
  readonly #pending = new Set<number>();
  /** How much of the program's output was read. */
  #read = 0;

  private constructor(running: Running, goodMs: number) {
    this.#running = running;
    this.#goodMs = goodMs;
  }

  /** Resolves once some went well: had their echo within `goodMs`. */
  static async start(
    host: Host,
    to: string,
    port: number,
    plan: { readonly everyMs: number; readonly goodMs: number; readonly giveUpMs: number },
  ): Promise<Beat> {
    const running = host.spawn('beat', client('beat', to, port, [plan.everyMs, plan.giveUpMs]));
    const beat = new Beat(running, plan.goodMs);
    await beat.calm(5);
    return beat;
  }

  /** Those that are over, in the order of their ends. */
  get calls(): readonly Call[] {
    const { output } = this.#running;
    const end = output.lastIndexOf('\n') + 1;
    for (const [, word, at, ms] of output.slice(this.#read, end).matchAll(/^(\w+) (\d+)(?: (\d+))?$/gm)) {
      if (word === 'begun') this.#pending.add(Number(at));
      else {
        this.#pending.delete(Number(at));
        this.#calls.push({ at: Number(at), ms: Number(ms), ok: word === 'echoed' });
      }
    }
    this.#read = end;
    return this.#calls;
  }

  well({ ok, ms }: Call): boolean {
    return ok && ms <= this.#goodMs;
  }

  /** Waits until so many in a row went well that began from now on. */
  async calm(count: number, timeoutMs = 30_000): Promise<void> {
    const since = Date.now();
    await waitFor(
      `${count} connections in a row go well`,
      () => {
        const last = this.calls.slice(-count);
        return last.length === count && last.every((call) => call.at >= since && this.well(call));
      },
      { timeoutMs, alive: this.#running },
    );
  }

  /** Waits until everything that began before now is over. */
  async settled(): Promise<void> {
    const before = Date.now();
    await waitFor(
      'earlier connections are over',
      () => this.calls.length > 0 && [...this.#pending].every((at) => at >= before),
      { alive: this.#running },
    );
  }

  async stop(): Promise<void> {
    await this.#running.stop();
  }
}

/** Readers that hardly read, all at once, until they are let go. */
export class SlowReaders {
  readonly #running: Running;

  private constructor(running: Running) {
    this.#running = running;
  }

  static start(
    host: Host,
    to: string,
    port: number,
    plan: { readonly readers: number; readonly bytes: number; readonly bytesPerSecond: number },
  ): SlowReaders {
    const amounts = [plan.bytes, plan.readers, plan.bytesPerSecond];
    return new SlowReaders(host.spawn('slow', client('slow', to, port, amounts)));
  }

  /** They read what is left at full speed; what each of them got. */
  async release(): Promise<readonly Transfer[]> {
    this.#running.kill('SIGTERM');
    await this.#running.ended;
    return JSON.parse(this.#running.output) as readonly Transfer[];
  }
}
