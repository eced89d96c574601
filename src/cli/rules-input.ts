import { existsSync, readFileSync } from 'node:fs';
import { type AllowList, describeProblem, parseAllowList } from '../capture/allow-list.ts';
import { redirectEntries } from '../capture/capture-plan.ts';
import type { Config } from '../config/schema.ts';
import { findUser } from '../daemon/user.ts';
import { type EndpointKey, parseEndpoint } from '../model/address.ts';
import { Catalogue } from '../registry/catalogue.ts';
import { createSource } from '../registry/create-source.ts';
import { type CliContext, CliError, exitCodes } from './context.ts';

/** How long the registries may take to tell what they know. */
const REGISTRY_MS = 5_000;

/** Everything that the rules depend on, as the daemon would have it. */
export interface RulesInput {
  readonly uid: number;
  readonly ports: readonly number[];
  readonly allowList: AllowList;
  readonly entries: readonly EndpointKey[];
}

/** Reads allow-list and registries. `uid` in place of that of `daemon.user`, which may not exist on this machine. */
export async function readRulesInput(
  config: Config,
  context: CliContext,
  uid: number | undefined,
): Promise<RulesInput> {
  return {
    uid: uid ?? findUser(config.daemon.user).uid,
    ports: listenerPorts(config),
    allowList: readAllowList(config.capture.allowList),
    entries: config.capture.mode === 'services' ? await readEntries(config, context) : [],
  };
}

/** Ports that the daemon listens on beside the capture port. */
function listenerPorts(config: Config): readonly number[] {
  const metrics = parseEndpoint(config.telemetry.metricsListen)?.port;
  return metrics === undefined ? [config.tunnel.port] : [config.tunnel.port, metrics];
}

function readAllowList(file: string): AllowList {
  if (!existsSync(file)) return [];
  const { entries, problems } = parseAllowList(readFileSync(file, 'utf8'));
  if (problems.length > 0) {
    const text = problems.map((problem) => describeProblem(file, problem)).join('\n');
    throw new CliError(exitCodes.configuration, text);
  }
  return entries;
}

/** Asks every registry once, and says which one did not answer: its services are missing from the set. */
async function readEntries(config: Config, context: CliContext): Promise<readonly EndpointKey[]> {
  const log = {
    info: () => undefined,
    warn: (_fields: object, text: string) => context.stderr(`mesh-node: ${text}\n`),
  };
  const sources = config.registries.map((registry) =>
    createSource(registry, { zone: config.node.zone, balance: config.balance.policy, log }),
  );
  const catalogue = new Catalogue(sources, log);
  await new Promise<void>((resolve) => {
    const deadline = setTimeout(resolve, REGISTRY_MS);
    const settled = (): void => {
      if (sources.some((source) => source.status.state === 'connecting')) return;
      clearTimeout(deadline);
      resolve();
    };
    catalogue.listen({ delta: () => undefined, status: settled });
    catalogue.start();
    settled();
  });
  for (const { name, status } of sources) {
    if (status.state === 'synced') continue;
    context.stderr(`mesh-node: registry ${name} did not answer; its services are left out\n`);
  }
  const entries = redirectEntries(Array.from(catalogue.snapshot.destinations, ([key]) => key));
  await Promise.all(sources.map((source) => source.stop()));
  return entries;
}
