import { readdirSync, readFileSync } from 'node:fs';

/** Reads a file of /proc; undefined when its process or thread is gone. */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function parentOf(pid: string): number | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  // The command name stands in parentheses and may hold anything, so fields are counted from its end.
  const parent = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
  return parent === undefined ? undefined : Number(parent);
}

/** These processes and everything they started that still lives. */
export function processTree(roots: readonly number[]): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = parentOf(entry);
    if (parent === undefined) continue;
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [Number(entry)]);
    else siblings.push(Number(entry));
  }
  const found = [...roots];
  for (let index = 0; index < found.length; index++) found.push(...(children.get(found[index]!) ?? []));
  return found;
}

/**
 * CPU of one process in nanoseconds, all living threads together. schedstat counts what the scheduler charged, in
 * nanoseconds; utime and stime of /proc/PID/stat have the same source but come in steps of 10 ms.
 */
function processCpu(pid: number): number | undefined {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    return undefined;
  }
  let sum = 0;
  for (const thread of threads)
    sum += Number(readProc(`/proc/${pid}/task/${thread}/schedstat`)?.split(' ')[0] ?? 0);
  return sum;
}

/** What a subject starts for a moment: its CPU is lost with it, some milliseconds in a measurement. */
const HELPERS = /^(ip|ip6?tables.*|ipset|xtables.*)$/;

function programOf(pid: number): string {
  return readProc(`/proc/${pid}/comm`)?.trim() ?? '';
}

/** Measures the CPU that processes and their descendants use between `start` and `stop`. */
export class CpuMeter {
  readonly #roots: readonly number[];
  #before = new Map<number, number>();
  /** Programs that were there at the start, to tell a proxy that died from a helper (iptables, ip) that had done its work. */
  #names = new Map<number, string>();
  #startedAt = 0n;

  constructor(roots: readonly number[]) {
    this.#roots = roots;
  }

  start(): void {
    this.#before = this.#read();
    this.#names = new Map([...this.#before.keys()].map((pid) => [pid, programOf(pid)]));
    this.#startedAt = process.hrtime.bigint();
  }

  /** CPU seconds since `start`, and how many cores that is. Throws when a process died meanwhile: its CPU is lost. */
  stop(): { cpuSeconds: number; coreShare: number } {
    const wallSeconds = Number(process.hrtime.bigint() - this.#startedAt) / 1e9;
    const after = this.#read();
    let nanoseconds = 0;
    for (const [pid, before] of this.#before) {
      const now = after.get(pid);
      if (now === undefined) {
        const name = this.#names.get(pid) ?? '';
        if (HELPERS.test(name)) continue;
        throw new Error(`process ${pid} (${name}) of the subject died while it was measured`);
      }
      nanoseconds += Math.max(0, now - before);
    }
    for (const [pid, now] of after) if (!this.#before.has(pid)) nanoseconds += now;
    return { cpuSeconds: nanoseconds / 1e9, coreShare: nanoseconds / 1e9 / wallSeconds };
  }

  #read(): Map<number, number> {
    const cpu = new Map<number, number>();
    for (const pid of processTree(this.#roots)) {
      const used = processCpu(pid);
      if (used !== undefined) cpu.set(pid, used);
    }
    return cpu;
  }
}
