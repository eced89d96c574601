import type { ManagedProcess } from '../process.ts';
import type { Backend, Site } from '../site.ts';

/**
 * `single`: one proxy on the client's host, which hands on in the clear. `pair`: one on each host, with mutual TLS
 * between them.
 */
export type Role = 'single' | 'pair';

/** What a subject reads: nothing of what it carries, or each request and answer, with 100 services to choose from. */
export type Protocol = 'tcp' | 'http';

/** How simulated peers connect to a subject that accepts them. */
export interface PeerPort {
  readonly kind: 'tls' | 'mesh';
  readonly address: string;
  readonly port: number;
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** A subject that is up and carries what is sent to its backend. */
export interface RunningSubject {
  /** Processes whose CPU and memory count, with all their descendants. Empty when nothing stands in the path. */
  readonly pids: readonly number[];
  /** For pairs: where other hosts would connect, and the processes that accept them. */
  readonly peers?: { readonly port: PeerPort; readonly pids: readonly number[] };
  /** False when one of its processes has ended by itself. */
  alive(): boolean;
  /** What its processes wrote last, for error messages. */
  output(): string;
  stop(): Promise<void>;
}

/** Something that can be measured. */
export interface Subject {
  readonly name: string;
  readonly roles: readonly Role[];
  /** The only scenarios in which it makes sense; by default all of its roles. */
  readonly scenarios?: readonly string[];
  /** By default `tcp`. */
  readonly protocols?: readonly Protocol[];
  /** Why it cannot be measured here (a program is not installed); undefined when it can. */
  missing(): Promise<string | undefined>;
  /** Starts it for one backend; need not wait until it is ready. */
  start(site: Site, backend: Backend, role: Role, protocol: Protocol): Promise<RunningSubject>;
}

/** What nearly every subject returns: these processes. */
export function running(
  processes: readonly ManagedProcess[],
  peers?: RunningSubject['peers'],
): RunningSubject {
  return {
    pids: processes.map((each) => each.pid),
    ...(peers === undefined ? {} : { peers }),
    alive: () => processes.every((each) => each.alive),
    output: () => processes.map((each) => each.output).join('\n'),
    stop: async () => {
      await Promise.all(processes.map((each) => each.stop()));
    },
  };
}
