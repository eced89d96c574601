import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { type CliContext, CliError, configOf, exitCodes, print } from './context.ts';

interface InitOptions {
  readonly directory: string;
  readonly days: number;
  readonly overwrite?: true;
}

interface IssueOptions extends InitOptions {
  readonly to: string;
  readonly callAs: readonly string[];
  readonly host: readonly string[];
  readonly relay?: true;
}

const DIRECTORY = '/etc/mesh-node/ca';

/** `ca init` and `ca issue`. */
export function addCaCommands(program: Command, context: CliContext): void {
  const ca = program.command('ca').description('make an authority, and certificates for nodes');
  ca.command('init')
    .option('-d, --directory <directory>', 'where ca.key and ca.crt go', DIRECTORY)
    .option('--days <days>', 'life of the authority', days, 3650)
    .option('--overwrite', 'replace an authority that is there: all its certificates become worthless')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('make the authority of a trust domain (identity.trustDomain)')
    .addHelpText(
      'after',
      `
Keep the directory on one safe machine: whoever has ca.key can be any node.

Example:
  mesh-node ca init --set identity.trustDomain=example.mesh`,
    )
    .action(async (options: InitOptions, command: Command) => {
      const { trustDomain } = configOf(command, context).identity;
      const { initAuthority } = await import('../identity/authority.ts');
      const authority = await initAuthority(options.directory, {
        trustDomain,
        days: options.days,
        overwrite: options.overwrite ?? false,
      });
      const { expiresAt } = authority;
      print(
        command,
        context,
        { trustDomain, directory: options.directory, expiresAt },
        () => `authority of ${trustDomain} in ${options.directory}, valid until ${dateText(expiresAt)}`,
      );
    });
  ca.command('issue')
    .argument('<node>', 'name of the host in the mesh (node.name)')
    .option('-d, --directory <directory>', 'where ca.key and ca.crt are', DIRECTORY)
    .option('-t, --to <directory>', 'where node.key, node.crt and ca.crt go (default: that of identity.key)')
    .option(
      '--call-as <services>',
      'services that the node may call as, with commas; * is any; repeatable',
      collect,
      [],
    )
    .option(
      '--host <services>',
      'services that the node may host, with commas; * is any; repeatable',
      collect,
      [],
    )
    .option('--relay', 'it is a zone-agent: it may relay')
    .option('--days <days>', 'life of the certificate', days, 90)
    .option('--overwrite', 'replace the certificate that is there')
    .option('-o, --output <format>', 'table or json', 'table')
    .description('make key and certificate of one node')
    .addHelpText(
      'after',
      `
Both ends of a tunnel verify what is granted here: a node cannot call as, or host, any other service.

Examples:
  mesh-node ca issue web1 --call-as shop --host shop,cart --to ./web1
  mesh-node ca issue gw1 --relay --to ./gw1`,
    )
    .action(async (node: string, options: IssueOptions, command: Command) => {
      const { identity } = configOf(command, context);
      const { issueNode, writeNodeBundle } = await import('../identity/authority.ts');
      const to = options.to ?? dirname(identity.key);
      const { callAs, host, days: life } = options;
      const relay = options.relay ?? false;
      if (callAs.length === 0 && host.length === 0 && !relay) {
        throw new CliError(
          exitCodes.usage,
          `a certificate that grants ${node} nothing is of no use`,
          'say --call-as, --host or --relay',
        );
      }
      const bundle = await issueNode(options.directory, { node, callAs, host, relay, days: life });
      const owner = await ownerOf(to);
      await writeNodeBundle(to, bundle, {
        overwrite: options.overwrite ?? false,
        ...(owner === undefined ? {} : { owner }),
      });
      const { expiresAt } = bundle;
      print(
        command,
        context,
        { node, directory: to, callAs, host, relay, expiresAt },
        () => `certificate of ${node} in ${to}, valid until ${dateText(expiresAt)}`,
      );
    });
}

/** As root, what is written belongs to whom the directory belongs: the daemon's user must be able to read its key. */
async function ownerOf(
  directory: string,
): Promise<{ readonly uid: number; readonly gid: number } | undefined> {
  if (process.geteuid?.() !== 0) return undefined;
  const found = await stat(directory).catch(() => undefined);
  return found === undefined ? undefined : { uid: found.uid, gid: found.gid };
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, ...value.split(',').filter((one) => one !== '')];
}

function days(text: string): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (value < 1) throw new CliError(exitCodes.usage, `--days ${text}: expected a number of days, at least 1`);
  return value;
}

function dateText(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}
