import { existsSync, readFileSync } from 'node:fs';
import { type AllowListEntry, describeProblem, parseAllowList } from '../capture/allow-list.ts';
import { SetPlanner } from '../capture/capture-plan.ts';
import type { Exemptions } from '../capture/exemptions.ts';
import type { Wanted } from '../capture/interception.ts';
import { FallbackPlanner } from '../capture/rules/fallback.ts';
import type { Config } from '../config/schema.ts';
import { findUser } from '../daemon/user.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { createLog } from '../telemetry/log.ts';
import { type CliContext, CliError, exitCodes } from './context.ts';

/** How long the registries may take to tell what they know. */
const REGISTRY_MS = 5_000;
/** How long the host names of services may take to resolve. */
const HOSTS_MS = 5_000;

/** Everything that the rules depend on, as the daemon would have it. */
export interface RulesInput {
  readonly uid: number;
  readonly ports: readonly number[];
  readonly wanted: Wanted;
}

/** Reads allow-list and registries. `uid` in place of that of `daemon.user`, which may not exist on this machine. */
export async function readRulesInput(
  config: Config,
  context: CliContext,
  uid: number | undefined,
): Promise<RulesInput> {
  // Not above: whoever asks for something else need not wait for the daemon's modules.
  const { ownPorts } = await import('../daemon/succession/listeners.ts');
  return {
    uid: uid ?? findUser(config.daemon.user).uid,
    ports: ownPorts(config),
    wanted: await readWanted(config, readAllowList(config.capture.allowList), context),
  };
}

async function readWanted(
  config: Config,
  list: readonly AllowListEntry[],
  context: CliContext,
): Promise<Wanted> {
  const { nodeName } = await import('../daemon/host.ts');
  const node = nodeName(config);
  const snapshot = await readSnapshot(config, context);
  const planner = new SetPlanner({ node, services: config.capture.only.services });
  const sets = planner.update(snapshot);
  const otherZones = config.zones.map(({ name }) => name);
  const fallback = new FallbackPlanner({ node, zone: config.node.zone, otherZones });
  fallback.update(snapshot);
  const { transparent } = planner;
  const { exempt, only } = await readExemptions(config, list, context);
  return { exempt, only, fallback: fallback.entries, transparent, sets };
}

/** Looks up what the list names, as the daemon does; what is not found is said. */
async function readExemptions(
  config: Config,
  list: readonly AllowListEntry[],
  context: CliContext,
): Promise<Exemptions> {
  const [{ exemptionsNow }, { Naming }] = await Promise.all([
    import('../daemon/supervisor/exemptions.ts'),
    import('../daemon/supervisor/naming.ts'),
  ]);
  const log = createLog({ level: 'error', process: 'cli', to: { write: (line) => context.stderr(line) } });
  const { hostNames } = new Naming(config, log);
  const exemptions = await exemptionsNow(config, list, hostNames);
  hostNames.stop();
  for (const problem of exemptions.problems) context.stderr(`mesh-node: left out for now: ${problem}\n`);
  return exemptions;
}

function readAllowList(file: string): readonly AllowListEntry[] {
  if (!existsSync(file)) return [];
  const { entries, problems } = parseAllowList(readFileSync(file, 'utf8'));
  if (problems.length > 0) {
    const text = problems.map((problem) => describeProblem(file, problem)).join('\n');
    throw new CliError(exitCodes.configuration, text);
  }
  return entries;
}

/** Asks every registry once, with what the cache remembers for those that do not answer, as the daemon does. */
async function readSnapshot(config: Config, context: CliContext): Promise<Snapshot> {
  const log = createLog({ level: 'error', process: 'cli', to: { write: (line) => context.stderr(line) } });
  const { Knowledge } = await import('../daemon/supervisor/knowledge.ts');
  const { Naming } = await import('../daemon/supervisor/naming.ts');
  const naming = new Naming(config, log);
  await naming.load();
  const knowledge = new Knowledge(config, log, {
    answered: () => {},
    decorate: (service) => naming.decorate(service),
  });
  await knowledge.load();
  const { catalogue } = knowledge;
  await new Promise<void>((resolve) => {
    const deadline = setTimeout(resolve, REGISTRY_MS);
    const settled = (): void => {
      if (catalogue.status.registries.some(({ state }) => state === 'connecting')) return;
      clearTimeout(deadline);
      resolve();
    };
    catalogue.listen({ delta: () => undefined, status: settled });
    catalogue.start();
    settled();
  });
  for (const { name, state, cached } of catalogue.status.registries) {
    if (state === 'synced') continue;
    const rest = cached ? 'what the cache remembers of it is used' : 'its services are left out';
    context.stderr(`mesh-node: registry ${name} did not answer; ${rest}\n`);
  }
  await naming.resolveOnce(catalogue, HOSTS_MS);
  await catalogue.stop();
  return catalogue.snapshot;
}
