import type { Sample } from '../measure/sample.ts';
import type { Backend, Site } from '../site.ts';
import type { Protocol, Role, RunningSubject } from '../subjects/subject.ts';

/** A subject at work: what a scenario measures. */
export interface Bench {
  readonly site: Site;
  readonly backend: Backend;
  readonly subject: RunningSubject;
}

/** One thing to measure. */
export interface Scenario {
  readonly name: string;
  /** One line for `--list` and above the table. */
  readonly title: string;
  readonly role: Role;
  /** What subjects know of the traffic; by default that it is TCP. */
  readonly protocol?: Protocol;
  /** Numbers of connections, each measured by itself. */
  readonly connections: readonly number[];
  /** The subject that the ratios refer to. */
  readonly reference: string;
  /**
   * `rounds`: every subject stays up and is measured in every round, in turn. `fresh`: each measurement gets a subject
   * that was just started, on a site of its own, as memory depends on what a process did before.
   */
  readonly lives: 'rounds' | 'fresh';
  measure(bench: Bench, connections: number, seconds: number): Promise<Sample>;
}
