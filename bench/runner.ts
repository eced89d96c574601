import type { Sample } from './measure/sample.ts';
import type { Bench, Scenario } from './scenarios/scenario.ts';
import { createSite, type Site, waitForRoute } from './site.ts';
import type { RunningSubject, Subject } from './subjects/subject.ts';

/** Connections and seconds of the run that makes a subject warm (compiled, buffers grown) before it counts. */
const WARM_UP = { connections: 32, seconds: 1 } as const;

/** The samples of one subject at one number of connections, one for each round. */
export interface Series {
  readonly scenario: Scenario;
  readonly subject: string;
  readonly connections: number;
  readonly samples: readonly Sample[];
}

/** What the runner reports while it works. */
export type Progress = (line: string) => void;

/**
 * Measures one scenario for all subjects, interleaved: in every round each subject has its turn at each number of
 * connections, and the order is turned round from round to round, so that nobody always follows the same neighbour.
 */
export async function runScenario(
  scenario: Scenario,
  all: readonly Subject[],
  options: { readonly rounds: number; readonly seconds: number },
  progress: Progress,
): Promise<Series[]> {
  const subjects = all.filter(
    ({ roles, scenarios }) => roles.includes(scenario.role) && (scenarios?.includes(scenario.name) ?? true),
  );
  const site = await createSite(subjects.length);
  const samples = new Map<string, Sample[]>();
  const running = new Map<string, RunningSubject>();
  try {
    if (scenario.lives === 'rounds') {
      for (const [index, subject] of subjects.entries()) {
        const bench = await start(site, scenario, subject, index);
        running.set(subject.name, bench.subject);
        await guarded(bench, subject, () => scenario.measure(bench, WARM_UP.connections, WARM_UP.seconds));
      }
    }
    for (let round = 0; round < options.rounds; round++) {
      for (const connections of scenario.connections) {
        for (const index of turned(subjects.length, round)) {
          const subject = subjects[index]!;
          const kept = running.get(subject.name);
          const bench =
            kept === undefined
              ? await start(site, scenario, subject, index)
              : { site, backend: site.backends[index]!, subject: kept };
          const sample = await guarded(bench, subject, () =>
            scenario.measure(bench, connections, options.seconds),
          );
          if (kept === undefined) await bench.subject.stop();
          const key = `${subject.name} ${connections}`;
          samples.set(key, [...(samples.get(key) ?? []), sample]);
          progress(
            `${scenario.name}: round ${round + 1} of ${options.rounds}, ${subject.name}, ${connections}`,
          );
        }
      }
    }
    await Promise.all([...running.values()].map((each) => each.stop()));
  } finally {
    await site.close();
  }
  return scenario.connections.flatMap((connections) =>
    subjects.map((subject) => ({
      scenario,
      subject: subject.name,
      connections,
      samples: samples.get(`${subject.name} ${connections}`) ?? [],
    })),
  );
}

/** Starts a subject and waits until its backend is reached through it. */
async function start(site: Site, scenario: Scenario, subject: Subject, index: number): Promise<Bench> {
  const backend = site.backends[index]!;
  const bench = { site, backend, subject: await subject.start(site, backend, scenario.role) };
  const way = bench.subject.pids.length === 0 ? 'direct' : 'proxied';
  await guarded(bench, subject, () => waitForRoute(site, backend, way, bench.subject.alive));
  return bench;
}

/** Names the subject, and what it printed, in whatever goes wrong. */
async function guarded<T>(bench: Bench, subject: Subject, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const printed = bench.subject.output();
    const detail = printed === '' ? '' : `\nIts output ends with:\n${printed}`;
    throw new Error(`${subject.name}: ${error instanceof Error ? error.message : String(error)}${detail}`);
  }
}

/** 0 … count−1, beginning at another place in each round. */
function turned(count: number, round: number): number[] {
  return Array.from({ length: count }, (_, index) => (index + round) % count);
}
