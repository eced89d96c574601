import type { ChildProcess } from 'node:child_process';
import { reapChild } from '../../io/exec.ts';
import { processStarted } from './roster.ts';

/** A worker's process, as its supervisor can end it and hear of its end. */
export interface WorkerLife {
  readonly pid: number;
  /** Tells once how it ended, in words for people. */
  onEnd(listener: (why: string) => void): void;
  /** The conversation with it is over: it ends, or has to be ended. */
  hungUp(): void;
  /** SIGKILL. */
  kill(): void;
  /** This process may end before it. */
  release(): void;
}

/** A worker that this process started. */
export class ChildLife implements WorkerLife {
  readonly pid: number;
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.pid = child.pid ?? -1;
    this.#child = child;
  }

  onEnd(listener: (why: string) => void): void {
    this.#child.once('error', (error) => listener(`could not be started: ${error.message}`));
    this.#child.once('exit', (code, signal) =>
      listener(signal === null ? `exited with ${code}` : `ended by ${signal}`),
    );
  }

  hungUp(): void {}

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  release(): void {
    this.#child.unref();
  }
}

/** How often it is looked whether a worker that hung up has ended. */
const LOOK_MS = 20;

/**
 * A worker that another supervisor started: after a crash it is somebody else's child, after an upgrade still ours, but
 * unknown to Node. That it lives is known by its conversation.
 */
export class AdoptedLife implements WorkerLife {
  readonly pid: number;
  readonly #started: string | undefined;
  readonly #listeners: ((why: string) => void)[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(pid: number) {
    this.pid = pid;
    this.#started = processStarted(pid);
  }

  onEnd(listener: (why: string) => void): void {
    this.#listeners.push(listener);
  }

  hungUp(): void {
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS);
  }

  kill(): void {
    // Its number may be somebody else's by now.
    if (this.#started !== undefined && processStarted(this.pid) === this.#started)
      process.kill(this.pid, 'SIGKILL');
    this.hungUp();
  }

  release(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const end = reapChild(this.pid);
    if (end === undefined) return;
    if (end === 'gone' && this.#started !== undefined && processStarted(this.pid) === this.#started) return;
    clearInterval(this.#timer);
    const why =
      end === 'gone'
        ? 'ended'
        : end.signal === undefined
          ? `exited with ${end.code}`
          : `ended by signal ${end.signal}`;
    for (const listener of this.#listeners.splice(0)) listener(why);
  }
}
