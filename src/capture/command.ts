import { spawn } from 'node:child_process';

/** One run of a program. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  /** Fed to standard input. */
  readonly input?: string;
  /** Added to the otherwise empty environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Milliseconds after which it is killed. */
  readonly timeoutMs: number;
}

/** How it ended. A program that could not be started has code 127 and says why on `stderr`. */
export interface CommandResult {
  /** Absent when it was killed. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
}

/** What runs the programs. The daemon passes one that raises its ambient capabilities around the spawn. */
export interface CommandRunner {
  /** Never rejects. */
  run(command: Command): Promise<CommandResult>;
}

/** Where iptables and ipset are looked for; the caller's own PATH has no say, nor has its environment. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
/** Most output that is kept: a listing of a million set members is about 40 MB. */
const MAX_OUTPUT = 64 * 1024 * 1024;

/** Runs programs as this process: fixed PATH, no other environment, SIGKILL when the time is over. */
export const plainRunner: CommandRunner = {
  run: (command) =>
    new Promise((resolve) => {
      const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
      let size = 0;
      let timedOut = false;
      const child = spawn(command.program, command.args, {
        env: { ...command.environment, PATH },
        stdio: ['pipe', 'pipe', 'pipe'],
        cwd: '/',
      });
      const timer = setTimeout(() => {
        timedOut = true;
        child.kill('SIGKILL');
        // A grandchild may hold the pipes; without this `close` would wait for it for ever.
        child.stdout.destroy();
        child.stderr.destroy();
      }, command.timeoutMs);
      const finish = (code: number | undefined, failure?: string): void => {
        clearTimeout(timer);
        const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('utf8');
        resolve({ code, stdout: text(output.stdout), stderr: failure ?? text(output.stderr), timedOut });
      };
      for (const stream of ['stdout', 'stderr'] as const) {
        child[stream].on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size <= MAX_OUTPUT) output[stream].push(chunk);
          else child.kill('SIGKILL');
        });
      }
      child.once('error', (error) => finish(127, error.message));
      child.once('close', (code) => finish(code ?? undefined));
      // A program that ends before it has read everything says why on stderr; EPIPE adds nothing.
      child.stdin.on('error', () => undefined);
      child.stdin.end(command.input ?? '');
    }),
};
