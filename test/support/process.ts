import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/** What a program that ran to its end left. */
export interface Outcome {
  /** Exit code; 128 + number when a signal ended it, as in a shell. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** A test program that says more than this is wrong; what is beyond is dropped. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;
/** Longer than anything takes on a busy machine: only what hangs meets it. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** How long is waited for a condition that no promise of the product bounds: a test that measures says its own. */
const WAIT_MS = 30_000;

class Output {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  add(chunk: Buffer): void {
    if (this.#bytes >= MAX_OUTPUT_BYTES) return;
    this.#bytes += chunk.length;
    this.#chunks.push(chunk);
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}

const signals: Readonly<Record<string, number>> = {
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

/** Runs a program to its end; never throws for its exit code. Past the timeout it is killed (code 137). */
export function run(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const child = start(command, options);
  const stdout = new Output();
  const stderr = new Output();
  child.stdout?.on('data', (chunk: Buffer) => stdout.add(chunk));
  child.stderr?.on('data', (chunk: Buffer) => stderr.add(chunk));
  child.stdin?.on('error', () => {}); // a program may end without having read its input
  child.stdin?.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code: code ?? 128 + (signals[signal ?? ''] ?? 0), stdout: stdout.text, stderr: stderr.text });
    });
  });
}

/** As {@link run}, for what has to work: throws with everything it said. */
export async function must(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await run(command, options);
  if (outcome.code !== 0) {
    throw new Error(
      `\`${command.join(' ')}\` ended with ${outcome.code}\n${outcome.stdout}${outcome.stderr}`.trimEnd(),
    );
  }
  return outcome.stdout;
}

function start(
  command: readonly string[],
  options: RunOptions,
  stdio: SpawnOptions['stdio'] = 'pipe',
): ChildProcess {
  const [file, ...args] = command;
  if (file === undefined) throw new Error('an empty command');
  return spawn(file, args, {
    stdio,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', ...options.env },
  });
}

/** How long a program may take after SIGTERM before it is killed. */
const STOP_GRACE_MS = 5000;

/** A program that runs beside the test. Its output is kept, and written to a file when one is named. */
export class Running {
  readonly name: string;
  readonly child: ChildProcess;
  readonly #output = new Output();
  #closed = false;
  #outcome: number | undefined;
  readonly ended: Promise<number>;

  constructor(
    name: string,
    command: readonly string[],
    options: RunOptions & { readonly logFile?: string } = {},
  ) {
    this.name = name;
    this.child = start(command, options, ['ignore', 'pipe', 'pipe']);
    const log =
      options.logFile === undefined ? undefined : createWriteStream(options.logFile, { flags: 'a' });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#output.add(chunk);
        log?.write(chunk);
      });
    }
    this.ended = new Promise((resolve) => {
      const over = (code: number) => {
        if (this.#closed) return;
        this.#closed = true;
        this.#outcome = code;
        log?.end();
        resolve(code);
      };
      this.child.once('error', (error) => {
        this.#output.add(Buffer.from(`${error.message}\n`));
        over(127);
      });
      this.child.once('exit', (code, signal) => over(code ?? 128 + (signals[signal ?? ''] ?? 0)));
    });
  }

  get pid(): number {
    const { pid } = this.child;
    if (pid === undefined) throw new Error(`${this.name} did not start: ${this.output}`);
    return pid;
  }

  get running(): boolean {
    return !this.#closed;
  }

  get exitCode(): number | undefined {
    return this.#outcome;
  }

  /** Everything it said so far, both streams. */
  get output(): string {
    return this.#output.text;
  }

  kill(signal: NodeJS.Signals): void {
    if (!this.#closed) this.child.kill(signal);
  }

  /** Asks it to end, then makes it. Resolves with its exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = STOP_GRACE_MS): Promise<number> {
    if (this.#closed) return this.ended;
    this.child.kill('SIGCONT'); // a stopped process would not hear the next one
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), graceMs);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }
}

/**
 * Waits for a condition, asking again every few milliseconds. A condition that throws is not met yet; the deadline's
 * error says what was waited for and what it threw last.
 */
export async function waitFor<T>(
  what: string,
  condition: () => Promise<T | undefined | false> | T | undefined | false,
  options: { readonly timeoutMs?: number; readonly intervalMs?: number; readonly alive?: Running } = {},
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? WAIT_MS;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (options.alive !== undefined && !options.alive.running) {
      throw new Error(
        `${options.alive.name} ended (${options.alive.exitCode}) before: ${what}\n${options.alive.output}`,
      );
    }
    if (performance.now() > deadline) {
      const said =
        options.alive === undefined ? '' : `\n${options.alive.name} said:\n${options.alive.output}`;
      throw new Error(
        `not within ${timeoutMs} ms: ${what}${last === undefined ? '' : ` (${String(last)})`}${said}`,
      );
    }
    await pause(options.intervalMs ?? 20);
  }
}
