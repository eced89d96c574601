import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { Interception } from '../capture/interception.ts';
import { type RenderedFamily, renderAll } from '../capture/rendered.ts';
import type { PlannedState } from '../capture/rules/fragment.ts';
import { ruleBase } from '../capture/rules/input.ts';
import type { Config } from '../config/schema.ts';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';
import { type RulesInput, readRulesInput } from './rules-input.ts';
import { table } from './table.ts';
import { runWithdrawScript } from './withdraw-script.ts';

interface RulesOptions {
  readonly uid?: number;
}

/** `rules print|apply|verify|remove`. */
export function addRulesCommands(program: Command, context: CliContext): void {
  const rules = program
    .command('rules')
    .description('interception rules of iptables, ipset and ip: print, apply, verify, remove')
    .addHelpText(
      'after',
      `
The running daemon does all this by itself; these are for looking, for trying, and for cleaning up without it.

Examples:
  mesh-node rules print
  mesh-node rules print --set capture.mode=all --uid 990
  mesh-node rules verify`,
    );
  const sub = (name: string, description: string): Command =>
    rules
      .command(name)
      .description(description)
      .option('--uid <number>', 'numeric user id of the daemon (default: that of daemon.user)', uidOf)
      .option('-o, --output <format>', 'table or json', 'table');
  const input = async (options: RulesOptions, command: Command): Promise<[Config, RulesInput]> => {
    const config = configOf(command, context);
    return [config, await readRulesInput(config, context, options.uid)];
  };
  const interception = (config: Config, { uid, ports }: Pick<RulesInput, 'uid' | 'ports'>): Interception =>
    new Interception({ config, uid, ports, log: quietLog });

  sub(
    'print',
    'print what apply feeds to iptables-restore, ipset and ip, without root and without applying it',
  ).action(async (options: RulesOptions, command: Command) => {
    const [config, { uid, ports, wanted: said }] = await input(options, command);
    const rendered = renderAll({ ...ruleBase(config, uid, ports), ...said }, said.sets, stateOf(config));
    const wanted = rendered.filter(({ family }) => family === 'ipv4' || config.capture.ipv6 !== 'off');
    print(command, context, wanted, () => wanted.map(renderedText).join(''));
  });

  sub('apply', 'bring the kernel to the configuration (root)').action(
    async (options: RulesOptions, command: Command) => {
      requireRoot();
      const [config, read] = await input(options, command);
      const applied = interception(config, read);
      await (stateOf(config) === 'applied' ? applied.apply(read.wanted) : applied.withdraw(read.wanted));
      const status = applied.status();
      print(command, context, status, () => {
        const { destinations, strict } = status;
        return `${status.state}: mode ${status.mode}, destinations ${destinations.ipv4} IPv4 and ${destinations.ipv6} IPv6, strict ${strict.ipv4} and ${strict.ipv6}, allow-list ${status.allowEntries}`;
      });
    },
  );

  sub('verify', 'compare the kernel with the configuration (root); exit code 1 when they differ').action(
    async (options: RulesOptions, command: Command) => {
      requireRoot();
      const [config, read] = await input(options, command);
      const findings = await differences(config, read);
      print(command, context, { findings }, () =>
        findings.length === 0
          ? 'the rules are as they should be'
          : table(
              [{ title: 'FAMILY' }, { title: 'KIND' }, { title: 'SUBJECT' }, { title: 'DETAIL' }],
              findings.map(({ family, kind, subject, detail }) => [family, kind, subject, detail]),
              context.columns,
            ),
      );
      if (findings.length > 0)
        throw new CliError(exitCodes.failed, 'the rules differ', 'mesh-node rules apply');
    },
  );

  sub('remove', 'take out every rule, chain, set and route of mesh-node and nothing else (root)').action(
    async (_options: RulesOptions, command: Command) => {
      requireRoot();
      const config = configOf(command, context);
      // No rule of removal names the user: it works after the user is gone, too.
      const removed = interception(config, { uid: 0, ports: [] });
      await removed.remove();
      // Names in the hosts file would lead to virtual addresses that lead nowhere any more.
      await runWithdrawScript(config, 'serving');
      print(command, context, removed.status(), () => 'removed');
    },
  );
}

/** What stands in the kernel otherwise than meant. */
export function differences(config: Config, read: RulesInput): ReturnType<Interception['verify']> {
  const { uid, ports } = read;
  const expected = new Interception({ config, uid, ports, log: quietLog });
  return expected.compare(read.wanted, stateOf(config));
}

/** What the daemon would do now: with `capture.disabledFile` there, nothing is intercepted. */
function stateOf({ capture }: Config): PlannedState {
  return existsSync(capture.disabledFile) ? 'withdrawn' : 'applied';
}

const quietLog = { info: () => undefined, warn: () => undefined };

/** A text that a shell can run: each input stands in a here-document of its program. */
function renderedText({ family, sets, rules, routes }: RenderedFamily): string {
  const program = family === 'ipv4' ? 'iptables-restore' : 'ip6tables-restore';
  const part = (command: string, input: string): string =>
    input === '' ? '' : `${command} <<'END'\n${input.endsWith('\n') ? input : `${input}\n`}END\n`;
  const commands = routes.map((route) => `ip ${route}\n`).join('');
  return part('ipset restore', sets) + commands + part(`${program} --noflush`, rules);
}

function uidOf(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new CliError(exitCodes.usage, `--uid ${text}: expected a number`);
  return Number(text);
}

function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new CliError(exitCodes.system, 'only root may look at or change the rules', 'sudo, or rules print');
}
