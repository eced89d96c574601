import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { UpgradeAnswer } from '../../admin/api.ts';
import { boundSocket } from '../../io/bound-socket.ts';
import { type Capability, hasCapability, withAmbientCapabilities } from '../../io/capabilities.ts';
import { replaceImage } from '../../io/exec.ts';
import { entryFile } from '../../io/installation.ts';
import { type ServiceNotifier, watchdogInterval } from '../../io/notify.ts';
import { MeshError } from '../../model/errors.ts';
import type { Log } from '../../telemetry/log.ts';
import type { OfferedDescriptor } from './held-listeners.ts';
import { bequeath, type Inheritance } from './inheritance.ts';
import type { OwnProgram, ProgramIdentity } from './own-program.ts';

/** How long the new version may take to say whether it accepts the running configuration. */
const VALIDATE_MS = 15_000;
/** Most that is kept of what it says. */
const MOST_SAID_BYTES = 16 * 1024;
/** What the supervisor holds and its next image needs, too. */
const KEPT: readonly Capability[] = ['CAP_NET_ADMIN', 'CAP_NET_RAW'];
/** Until the next image gives a sign of life: on a busy host a program takes its time to start. */
const BECOME_MS = 60_000;
/** Entry of the program, below its directory. */
const MAIN = entryFile('main');

/** How this process was started, in terms of the command line. */
export interface CommandLines {
  /** Arguments of this very run. */
  readonly run: readonly string[];
  /** `validate`, with the same configuration. */
  readonly validate: readonly string[];
}

/** An upgrade that can be done; `proceed` does it, once whoever asked was answered. */
export interface UpgradeStep {
  readonly answer: UpgradeAnswer;
  proceed(): void;
}

interface UpgraderOptions {
  readonly log: Log;
  readonly notifier: ServiceNotifier;
  readonly program: OwnProgram;
  readonly lines: CommandLines;
  readonly inherited: Inheritance | undefined;
  listeners(): readonly OfferedDescriptor[];
  /** Tells the workers that another supervisor comes. */
  handOver(): Promise<void>;
  /** Nothing came of it: everything is as it was. */
  goOn(): void;
}

/** Replaces the program of this process by the one that is installed where it was, and back when that cannot start. */
export class Upgrader {
  readonly #options: UpgraderOptions;

  constructor(options: UpgraderOptions) {
    this.#options = options;
    const { log, inherited } = options;
    if (inherited?.failed !== undefined)
      log.error({ why: inherited.failed }, 'upgrade: the new version could not start; this one goes on');
    else if (inherited !== undefined)
      log.info({ from: inherited.from.version, to: options.program.identity.version }, 'upgrade: begun');
  }

  /**
   * Asks the version that is installed now whether it accepts the running configuration. Throws a MeshError
   * `configuration` with what it said when it does not, `system` when it cannot be asked; nothing has changed then.
   */
  async prepare(startedAt: number): Promise<UpgradeStep> {
    const { program, lines } = this.#options;
    const { installedAt } = program;
    let next: ProgramIdentity;
    try {
      next = program.installed();
    } catch (error) {
      throw new MeshError('system', 'operator', `no usable program in ${installedAt}: ${String(error)}`);
    }
    const { code, said } = await run([...process.execArgv, join(installedAt, MAIN), ...lines.validate]);
    if (code !== 0) {
      const why = said.trim() === '' ? `it ended with ${code ?? 'a signal'}` : said.trim();
      const text = `mesh-node ${next.version} does not accept the running configuration: ${why}`;
      throw new MeshError(code === undefined ? 'system' : 'configuration', 'operator', text);
    }
    const { identity } = program;
    const answer = { from: identity.version, to: next.version, pid: process.pid, startedAt };
    return { answer, proceed: () => void this.#proceed(answer) };
  }

  /** This image cannot start: the version before takes over again. Returns when there is none. */
  async fallBack(error: unknown): Promise<void> {
    const { log, inherited, listeners, handOver } = this.#options;
    if (inherited === undefined || inherited.failed !== undefined) return;
    const { from, installedAt } = inherited;
    log.error({ error, to: from.version }, 'upgrade: this version cannot start');
    try {
      await handOver();
      await flushed(log);
      // It may have failed before it had taken what was left to it.
      const taken = listeners();
      const left = taken.length > 0 ? taken : inherited.listeners;
      this.#become(from.directory, {
        ...{ installedAt, from, failed: String(error) },
        listeners: left.filter(({ fd }) => boundSocket(fd) !== undefined),
      });
    } catch (second) {
      log.error({ error: second }, 'upgrade: nor can the one before');
    }
  }

  async #proceed({ from, to }: UpgradeAnswer): Promise<void> {
    const { log, notifier, program, listeners, handOver, goOn } = this.#options;
    log.info({ from, to }, 'upgrade: replacing the program');
    notifier.tell('reloading', `upgrade to ${to}`);
    try {
      await handOver();
      await flushed(log);
      const { installedAt, directory } = program;
      this.#become(installedAt, {
        ...{ listeners: listeners(), installedAt },
        from: { version: from, directory },
      });
    } catch (error) {
      log.error({ error }, 'upgrade: the program was not replaced');
      goOn();
    }
  }

  #become(directory: string, inheritance: Inheritance): never {
    const { notifier, lines } = this.#options;
    const interval = watchdogInterval(process.env, process.pid);
    try {
      if (interval !== undefined) notifier.patience(BECOME_MS);
      return become(directory, lines, inheritance);
    } finally {
      if (interval !== undefined) notifier.patience(interval * 2);
    }
  }
}

function flushed(log: Log): Promise<void> {
  return new Promise((resolve) => {
    log.flush(() => resolve());
  });
}

/**
 * Becomes the program that lies in a directory: same process, same children, nothing is closed that is left to it. Returns
 * only by throwing, and then everything is as it was.
 */
function become(directory: string, lines: CommandLines, inheritance: Inheritance): never {
  const environment = Object.fromEntries(
    Object.entries({ ...process.env, ...bequeath(inheritance) }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    ),
  );
  const args = [...process.execArgv, join(directory, MAIN), ...lines.run];
  const keep = inheritance.listeners.map(({ fd }) => fd);
  const replace = () => replaceImage(process.execPath, args, environment, keep);
  // A user's program has only ambient capabilities after exec; root has everything anyway.
  if (process.geteuid?.() === 0) return replace();
  return withAmbientCapabilities(KEPT.filter(hasCapability), replace);
}

interface Verdict {
  /** Undefined when a signal ended it, or it took too long. */
  readonly code: number | undefined;
  readonly said: string;
}

function run(args: readonly string[]): Promise<Verdict> {
  return new Promise((resolve, reject) => {
    // The service manager hears of the service only from the service.
    const { NOTIFY_SOCKET: _, WATCHDOG_USEC: __, WATCHDOG_PID: ___, ...env } = process.env;
    const child = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
      timeout: VALIDATE_MS,
      killSignal: 'SIGKILL',
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        if (said.length < MOST_SAID_BYTES) said += chunk.toString();
      });
    child.once('error', (error) => reject(new MeshError('system', 'kernel', error.message)));
    child.once('close', (code) => resolve({ code: code ?? undefined, said: said.slice(0, MOST_SAID_BYTES) }));
  });
}
