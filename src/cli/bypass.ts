import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import type { RulesAnswer } from '../admin/api.ts';
import { loadConfig } from '../config/load.ts';
import { ConfigError } from '../config/problem.ts';
import type { Config } from '../config/schema.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { suspensionText } from './suspensions.ts';
import { fields } from './table.ts';
import { runWithdrawScript } from './withdraw-script.ts';

/** How long the daemon may take: it looks for the file twice a second, and changing rules takes as long again. */
const ANSWER_MS = 15_000;
const ASK_AGAIN_MS = 100;

/** What `bypass` answers with `-o json`. */
interface BypassAnswer {
  /** The file is there. */
  readonly bypass: 'on' | 'off';
  readonly file: string;
  /** When it was made. */
  readonly since?: number;
  readonly daemon: 'running' | 'not running';
  /** State of interception and why new connections go direct, as the daemon says. */
  readonly interception?: string;
  readonly suspensions?: readonly string[];
  /** Addresses of strict services: connections to them are refused as long as nothing is intercepted. */
  readonly strictAddresses?: number;
}

/** `bypass on|off|status`. */
export function addBypassCommand(program: Command, context: CliContext): void {
  const bypass = program
    .command('bypass')
    .description('take this host out of the mesh, and back: new connections go direct')
    .addHelpText(
      'after',
      `
"on" makes the file capture.disabledFile; making or removing it by other means is the same. It survives restarts and reboots.
Live connections go on as they are. Services in strict mode stay refused: they are reached through the mesh or not at all.

Examples:
  mesh-node bypass on
  mesh-node bypass status -o json
  touch /etc/mesh-node/disabled       the same as "on", without Node`,
    );
  const sub = (name: string, description: string, run: (config: Config) => Promise<BypassAnswer>): void => {
    bypass
      .command(name)
      .description(description)
      .option('-o, --output <format>', 'table or json', 'table')
      .action(async (_options: unknown, command: Command) => {
        const answer = await run(configForced(command, context));
        print(command, context, answer, () => answerText(answer));
      });
  };
  sub('on', 'new connections of this host go direct; resolves when they do', turnOn);
  sub('off', 'new connections are intercepted again', turnOff);
  sub('status', 'what holds now', status);
}

/** The configuration, or the defaults where it cannot be used: whoever wants out must get out. */
function configForced(command: Command, context: CliContext): Config {
  try {
    return configOf(command, context);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    context.stderr(`${error.message}\nmesh-node: the configuration cannot be used; going by the defaults\n`);
    return loadConfig({ text: '' });
  }
}

async function turnOn(config: Config): Promise<BypassAnswer> {
  const file = config.capture.disabledFile;
  changeFile(file, () => {
    mkdirSync(dirname(file), { recursive: true });
    // What is there already is left as it is: somebody may have written down why.
    writeFileSync(file, `mesh-node bypass on, ${new Date().toISOString()}\n`, { flag: 'a', mode: 0o644 });
  });
  const rules = await until(
    config,
    ({ suspensions, state }) => suspensions.includes('disabled') && state !== 'applied',
  );
  // Nobody is there to withdraw the rules: the script does it that also does it when the daemon has died.
  if (rules === undefined) await runWithdrawScript(config, 'now');
  return answerOf(file, rules);
}

async function turnOff(config: Config): Promise<BypassAnswer> {
  const file = config.capture.disabledFile;
  changeFile(file, () => rmSync(file, { force: true }));
  const rules = await until(
    config,
    ({ suspensions, state, mode }) =>
      !suspensions.includes('disabled') &&
      // It is on its way back, unless something else keeps it away.
      (suspensions.length > 0 || state !== 'withdrawn' || mode === 'off'),
  );
  return answerOf(file, rules);
}

async function status(config: Config): Promise<BypassAnswer> {
  return answerOf(config.capture.disabledFile, await until(config, () => true));
}

function changeFile(file: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const hint = code === 'EACCES' || code === 'EPERM' ? 'run it as root' : undefined;
    throw new CliError(exitCodes.system, `${file} could not be changed: ${message}`, hint);
  }
}

/** What the daemon says about the rules once it is as expected; undefined when it does not run. */
async function until(
  config: Config,
  expected: (rules: RulesAnswer) => boolean,
): Promise<RulesAnswer | undefined> {
  const client = new DaemonClient(config.daemon.runtimeDirectory);
  const deadline = performance.now() + ANSWER_MS;
  for (;;) {
    let rules: RulesAnswer;
    try {
      rules = await client.get<RulesAnswer>('/v1/rules');
    } catch (error) {
      if (error instanceof CliError && error.exitCode === exitCodes.unreachable) return undefined;
      throw error;
    }
    if (expected(rules)) return rules;
    if (performance.now() > deadline) {
      const said = rules.lastError ?? `interception is ${rules.state}`;
      const message = `the daemon has not followed within ${ANSWER_MS / 1000} s: ${said}`;
      throw new CliError(exitCodes.failed, message, 'mesh-node status rules');
    }
    await pause(ASK_AGAIN_MS);
  }
}

function answerOf(file: string, rules: RulesAnswer | undefined): BypassAnswer {
  const made = statSync(file, { throwIfNoEntry: false });
  return {
    bypass: made === undefined ? 'off' : 'on',
    file,
    ...(made === undefined ? {} : { since: Math.round(made.mtimeMs) }),
    daemon: rules === undefined ? 'not running' : 'running',
    ...(rules === undefined
      ? {}
      : {
          interception: rules.state,
          suspensions: rules.suspensions,
          strictAddresses: rules.strict.ipv4 + rules.strict.ipv6,
        }),
  };
}

function answerText(answer: BypassAnswer): string {
  const { bypass, file, since, daemon, interception, suspensions = [], strictAddresses = 0 } = answer;
  const pairs: [string, string][] = [
    ['bypass', bypass === 'off' ? 'off' : `on: ${file}, since ${new Date(since ?? 0).toISOString()}`],
    ['daemon', daemon],
  ];
  if (interception !== undefined) pairs.push(['interception', interception]);
  for (const reason of suspensions) pairs.push(['  goes direct', suspensionText(reason, file)]);
  if (strictAddresses > 0 && interception !== 'applied')
    pairs.push(['refused', `${strictAddresses} addresses of strict services`]);
  if (daemon === 'not running') pairs.push(['new connections', 'go direct; strict services are refused']);
  return fields(pairs);
}
