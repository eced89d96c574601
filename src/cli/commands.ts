import type { Command } from 'commander';
import type { CliContext } from './context.ts';

/** Adds one command, or a few that belong together, to the program. */
type AddCommands = (program: Command, context: CliContext) => void;

interface Entry {
  /** First words that mean a command of this entry. */
  readonly names: readonly string[];
  readonly load: () => Promise<AddCommands>;
}

/**
 * The commands, in the order in which help shows them. Each is a module that is loaded only when it may be meant: together they
 * know all of the product, and a question to the daemon should not wait for what only `diff` needs.
 */
const entries: readonly Entry[] = [
  { names: ['run', 'zone-agent'], load: async () => (await import('./run.ts')).addRunCommands },
  { names: ['validate'], load: async () => (await import('./validate.ts')).addValidateCommand },
  { names: ['diff'], load: async () => (await import('./diff.ts')).addDiffCommand },
  { names: ['policies'], load: async () => (await import('./policies.ts')).addPoliciesCommand },
  { names: ['rules'], load: async () => (await import('./rules.ts')).addRulesCommands },
  { names: ['check'], load: async () => (await import('./check.ts')).addCheckCommand },
  { names: ['status'], load: async () => (await import('./status.ts')).addStatusCommand },
  { names: ['resolve'], load: async () => (await import('./resolve.ts')).addResolveCommand },
  { names: ['authz'], load: async () => (await import('./authz.ts')).addAuthzCommands },
  { names: ['events'], load: async () => (await import('./events.ts')).addEventsCommand },
  { names: ['explain'], load: async () => (await import('./explain.ts')).addExplainCommand },
  { names: ['why'], load: async () => (await import('./why.ts')).addWhyCommand },
  { names: ['observe'], load: async () => (await import('./observe.ts')).addObserveCommand },
  { names: ['reload'], load: async () => (await import('./reload.ts')).addReloadCommand },
  { names: ['drain'], load: async () => (await import('./drain.ts')).addDrainCommand },
  { names: ['upgrade'], load: async () => (await import('./upgrade.ts')).addUpgradeCommand },
  { names: ['bypass'], load: async () => (await import('./bypass.ts')).addBypassCommand },
  { names: ['ca'], load: async () => (await import('./ca.ts')).addCaCommands },
];

/**
 * The commands that a command line may mean: those it names anywhere, for options with values may stand before the command.
 * All of them when it names none, or asks for help.
 */
export function commandsFor(argv: readonly string[]): Promise<readonly AddCommands[]> {
  const help = argv.includes('help') || argv[0] === '--help' || argv[0] === '-h';
  const named = help ? [] : entries.filter(({ names }) => names.some((name) => argv.includes(name)));
  const versionOnly = argv.length === 1 && ['--version', '-V'].includes(argv[0]!);
  const meant = named.length > 0 || versionOnly ? named : entries;
  return Promise.all(meant.map(({ load }) => load()));
}
