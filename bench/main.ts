import { writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { hasProgram, killAll, stopAll } from './process.ts';
import { type Result, summarize, table, verdicts } from './report.ts';
import { runScenario } from './runner.ts';
import { scenarios } from './scenarios/index.ts';
import { subjects } from './subjects/index.ts';
import type { Subject } from './subjects/subject.ts';

interface Options {
  readonly scenario: readonly string[];
  readonly subject: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly json?: string;
  readonly list?: boolean;
}

/** Programs without which nothing can be measured. */
const REQUIRED = ['ip', 'iptables', 'setpriv', 'taskset', 'sysctl', 'openssl', 'nginx', 'wrk', 'iperf3'];

const count =
  (most: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1 || value > most) {
      throw new InvalidArgumentError(`expected a whole number from 1 to ${most}`);
    }
    return value;
  };

/** A repeatable option that takes only these names. */
const oneOf =
  (names: readonly string[]) =>
  (text: string, chosen: readonly string[]): string[] => {
    if (!names.includes(text)) throw new InvalidArgumentError(`expected one of ${names.join(', ')}`);
    return [...chosen, text];
  };

const program = new Command('bench')
  .description('Measures mesh-node beside other proxies: interleaved, in network namespaces of its own.')
  .option(
    '--scenario <name>',
    'measure only this scenario (repeatable)',
    oneOf(scenarios.map((each) => each.name)),
    [],
  )
  .option(
    '--subject <name>',
    'measure only this subject (repeatable)',
    oneOf(subjects.map((each) => each.name)),
    [],
  )
  .option('--rounds <n>', 'turns of every subject', count(100), 5)
  .option('--seconds <n>', 'length of one measurement', count(600), 3)
  .option('--json <file>', 'write the results as a JSON array')
  .option('--list', 'list scenarios and subjects, and measure nothing');

/** The chosen subjects that this machine has; says which it lacks. Asking by name for one that is missing is an error. */
async function available(chosen: readonly string[]): Promise<Subject[]> {
  const found: Subject[] = [];
  for (const subject of subjects) {
    if (chosen.length > 0 && !chosen.includes(subject.name)) continue;
    const missing = await subject.missing();
    if (missing === undefined) found.push(subject);
    else if (chosen.includes(subject.name)) throw new Error(`${subject.name}: ${missing}`);
    else console.error(`left out ${subject.name}: ${missing}`);
  }
  return found;
}

function list(): void {
  for (const { name, connections, title } of scenarios)
    console.log(`${name} (${connections.join(', ')}): ${title}`);
  console.log(`subjects: ${subjects.map(({ name, roles }) => `${name} (${roles.join(', ')})`).join(', ')}`);
}

async function main(options: Options): Promise<void> {
  if (options.list === true) {
    list();
    return;
  }
  if (process.getuid?.() !== 0) throw new Error('network namespaces and REDIRECT rules need root');
  for (const name of REQUIRED) if (!(await hasProgram(name))) throw new Error(`${name} is not installed`);
  const compared = await available(options.subject);
  const wanted = scenarios.filter(
    ({ name }) => options.scenario.length === 0 || options.scenario.includes(name),
  );
  const results: Result[] = [];
  const load = loadavg()[0]!.toFixed(2);
  console.log(
    `${cpus().length} cores, load ${load} at the start; ${options.rounds} rounds of ${options.seconds} s`,
  );
  const progress = (line: string): void => {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
  };
  for (const scenario of wanted) {
    const summary = summarize(await runScenario(scenario, compared, options, progress));
    progress('');
    console.log(`\n${scenario.name}: ${scenario.title}\n${table(summary)}`);
    results.push(...summary);
    // Written after each scenario, so that a later one that fails takes nothing with it.
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, undefined, 2)}\n`);
  }
  const reached = verdicts(results);
  if (reached !== undefined) console.log(`\nGoals (median of the ratios of all rounds)\n${reached}`);
}

process.on('exit', killAll);
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
  ['SIGHUP', 1],
] as const) {
  process.on(signal, () => process.exit(128 + number));
}

try {
  program.parse();
  await main(program.opts<Options>());
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  await stopAll();
}
