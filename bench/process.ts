import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';

/** User id of every measured proxy, `nobody`: rules exclude the proxy's own traffic by it. */
export const PROXY_UID = 65534;

/** Bytes of a process's output that are kept for error messages. */
const OUTPUT_TAIL = 4096;
/** How long a process may take to end by itself after SIGTERM. */
const STOP_TIMEOUT_MS = 5000;

/** Who a process belongs to, which decides the core it runs on. */
export type Part = 'subject' | 'load' | 'server';

/**
 * Cores: the subject has the first one for itself; load generator and server share the second, and have one each
 * from three cores on. On a single core nothing is pinned.
 */
function coreOf(part: Part): number | undefined {
  const count = cpus().length;
  if (count < 2) return undefined;
  if (part === 'subject') return 0;
  return part === 'server' && count > 2 ? 2 : 1;
}

/** Where and as whom a process runs. */
export interface Placement {
  readonly namespace: string;
  readonly part: Part;
  /** Run as {@link PROXY_UID} instead of root. */
  readonly unprivileged?: boolean;
  /** Capabilities an unprivileged process keeps, for example `net_admin`. */
  readonly capabilities?: readonly string[];
}

/** The command line that runs `command` in its place. Every link of the chain execs, so the pid is the command's. */
function commandLine(placement: Placement, command: readonly string[]): string[] {
  const line = ['ip', 'netns', 'exec', placement.namespace];
  const core = coreOf(placement.part);
  if (core !== undefined) line.push('taskset', '-c', String(core));
  // Dies with the bench, even when that is killed in a way it cannot handle.
  line.push('setpriv', '--pdeathsig', 'KILL');
  if (placement.unprivileged === true) {
    line.push(`--reuid=${PROXY_UID}`, `--regid=${PROXY_UID}`, '--clear-groups');
    const kept = ['-all', ...(placement.capabilities ?? []).map((name) => `+${name}`)].join(',');
    line.push(`--inh-caps=${kept}`, `--ambient-caps=${kept}`);
  }
  return [...line, ...command];
}

const living = new Set<ManagedProcess>();

/** A long-lived process that the bench started; {@link stopAll} ends every one that still runs. */
export class ManagedProcess {
  readonly name: string;
  readonly child: ChildProcess;
  #tail = '';

  constructor(name: string, placement: Placement, command: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.name = name;
    const [program, ...rest] = commandLine(placement, command);
    this.child = spawn(program!, rest, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    const keep = (chunk: Buffer): void => {
      this.#tail = (this.#tail + chunk.toString('utf8')).slice(-OUTPUT_TAIL);
    };
    this.child.stdout?.on('data', keep);
    this.child.stderr?.on('data', keep);
    this.child.on('error', (error) => keep(Buffer.from(error.message)));
    this.child.stdin?.on('error', () => undefined); // EPIPE of a process that died; its exit is what counts
    living.add(this);
    this.child.on('exit', () => living.delete(this));
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} could not be started: ${this.#tail}`);
    return this.child.pid;
  }

  get alive(): boolean {
    return this.child.pid !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The last of what it wrote, for error messages. */
  get output(): string {
    return this.#tail.trim();
  }

  /** Ends the process: SIGTERM, and SIGKILL when that is not enough. */
  async stop(): Promise<void> {
    if (!this.alive) return;
    const gone = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await gone;
    clearTimeout(timer);
  }
}

/** Ends every process that was started and still runs. */
export async function stopAll(): Promise<void> {
  await Promise.all([...living].map((each) => each.stop()));
}

/** Kills, without waiting, every process that still runs: for the exit handler, where nothing can be awaited. */
export function killAll(): void {
  for (const each of living) each.child.kill('SIGKILL');
}

/** Runs a command to its end and gives what it printed; throws, with its error output, when it fails. */
export async function run(command: readonly string[], input?: string): Promise<string> {
  const [program, ...rest] = command;
  const child = spawn(program!, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input ?? '');
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== 0) {
    throw new Error(
      `${command.join(' ')}: ended with ${code ?? signal}: ${(stderr || stdout).trim().slice(-1000)}`,
    );
  }
  return stdout;
}

/** {@link run} in a namespace, on the cores of its part. */
export async function runIn(
  placement: Placement,
  command: readonly string[],
  input?: string,
): Promise<string> {
  return run(commandLine(placement, command), input);
}

/** True when a program of this name is on the path. */
export async function hasProgram(name: string): Promise<boolean> {
  try {
    await run(['sh', '-c', 'command -v "$1"', 'sh', name]);
    return true;
  } catch {
    return false;
  }
}
