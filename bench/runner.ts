import type { Sample } from './measure/sample.ts';
import type { Bench, Scenario } from './scenarios/scenario.ts';
import { createSite, type Site, waitForRoute } from './site.ts';
import type { Subject } from './subjects/subject.ts';

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
type Progress = (line: string) => void;

/** How much is measured. */
interface Effort {
  readonly rounds: number;
  /** Length of one measurement. */
  readonly seconds: number;
}

/** One measurement of the plan. */
interface Turn {
  readonly round: number;
  readonly connections: number;
  /** Position of the subject. */
  readonly index: number;
}

/**
 * Measures one scenario for all subjects, interleaved: in every round each subject has its turn at each number of
 * connections, and the order is turned round from round to round, so that nobody always follows the same neighbour.
 */
export async function runScenario(
  scenario: Scenario,
  all: readonly Subject[],
  effort: Effort,
  progress: Progress,
): Promise<Series[]> {
  const { name, role, protocol = 'tcp' } = scenario;
  const subjects = all.filter(
    ({ roles, protocols = ['tcp'], scenarios = [name] }) =>
      roles.includes(role) && protocols.includes(protocol) && scenarios.includes(name),
  );
  const plan = turns(scenario, subjects.length, effort.rounds);
  const samples = new Map<string, Sample[]>();
  const note = ({ round, connections, index }: Turn, sample: Sample): void => {
    const key = `${index} ${connections}`;
    samples.set(key, [...(samples.get(key) ?? []), sample]);
    progress(`${scenario.name}: round ${round + 1}, ${subjects[index]!.name}, ${connections} connections`);
  };
  const measureAll = scenario.lives === 'rounds' ? measureTogether : measureFresh;
  await measureAll(scenario, subjects, plan, effort.seconds, note);
  return scenario.connections.flatMap((connections) =>
    subjects.map((subject, index) => ({
      scenario,
      subject: subject.name,
      connections,
      samples: samples.get(`${index} ${connections}`) ?? [],
    })),
  );
}

function turns(scenario: Scenario, subjects: number, rounds: number): Turn[] {
  const plan: Turn[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const connections of scenario.connections) {
      for (let at = 0; at < subjects; at++) plan.push({ round, connections, index: (at + round) % subjects });
    }
  }
  return plan;
}

/** All subjects stand on one site, are used a little, and then take their turns. */
async function measureTogether(
  scenario: Scenario,
  subjects: readonly Subject[],
  plan: readonly Turn[],
  seconds: number,
  note: (turn: Turn, sample: Sample) => void,
): Promise<void> {
  const site = await createSite(subjects.length);
  try {
    const benches: Bench[] = [];
    for (const [index, subject] of subjects.entries()) {
      const bench = await start(site, scenario, subject, index);
      benches.push(bench);
      await guarded(bench, subject, () => scenario.measure(bench, WARM_UP.connections, WARM_UP.seconds));
    }
    for (const turn of plan) {
      const bench = benches[turn.index]!;
      const work = () => scenario.measure(bench, turn.connections, seconds);
      note(turn, await guarded(bench, subjects[turn.index]!, work));
    }
    await Promise.all(benches.map((bench) => bench.subject.stop()));
  } finally {
    await site.close();
  }
}

/** Every turn has a site and a subject of its own. */
async function measureFresh(
  scenario: Scenario,
  subjects: readonly Subject[],
  plan: readonly Turn[],
  seconds: number,
  note: (turn: Turn, sample: Sample) => void,
): Promise<void> {
  for (const turn of plan) {
    const subject = subjects[turn.index]!;
    const site = await createSite(1);
    try {
      const bench = await start(site, scenario, subject, 0);
      note(turn, await guarded(bench, subject, () => scenario.measure(bench, turn.connections, seconds)));
      await bench.subject.stop();
    } finally {
      await site.close();
    }
  }
}

/** Starts a subject and waits until its backend is reached through it. */
async function start(site: Site, scenario: Scenario, subject: Subject, index: number): Promise<Bench> {
  const backend = site.backends[index]!;
  const { role, protocol = 'tcp' } = scenario;
  const running = await subject.start(site, backend, role, protocol);
  const bench = { site, backend, subject: running };
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
