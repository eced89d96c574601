import { plainRunner } from '../../capture/command.ts';
import { ownChains } from '../../capture/live-table.ts';
import { families } from '../../capture/names.ts';
import { Netfilter } from '../../capture/netfilter.ts';
import { ROUTE_PROTOCOL } from '../../capture/rules/fragment.ts';
import { type Check, type CheckSubject, fail, listed, ok, skip, warn } from './check.ts';

const REMOVE = 'mesh-node rules remove';
/** First of the two lines between which names stand while no agent answers for them (systemd/withdraw-rules). */
const HOSTS_BLOCK = /^# mesh-node: begin/m;

/** What of ours is in the kernel and in /etc/hosts although no agent runs. */
export const leftovers: Check = {
  name: 'leftovers',
  run: async (subject) => {
    if ((await subject.daemon()) !== undefined) return ok('the daemon runs, and answers for what is there');
    if (!subject.root) return skip('only root may look at the rules');
    const { config, read, run } = subject;
    const netfilter = await Netfilter.open(config.capture, plainRunner);
    const parts: string[] = [];
    let redirecting = false;
    const chains = new Set<string>();
    for (const family of families) {
      const tables = await netfilter.readTables(family).catch(() => undefined);
      for (const table of tables?.values() ?? []) {
        for (const chain of ownChains(table)) {
          chains.add(chain);
          redirecting ||= table.get(chain)!.some((rule) => rule.includes('-p tcp -j REDIRECT'));
        }
      }
    }
    if (chains.size > 0) parts.push(`chains ${listed([...chains])}`);
    const sets = (await run('ipset', ['list', '-name'])).stdout
      .split('\n')
      .filter((name) => name.startsWith('MESH_'));
    if (sets.length > 0) parts.push(`sets ${listed(sets)}`);
    const routes = await routesOfOurs(subject);
    if (routes.length > 0) parts.push(`routes ${listed(routes)}`);
    if (HOSTS_BLOCK.test((await read('/etc/hosts')) ?? '')) parts.push('names in /etc/hosts');
    if (parts.length === 0) return ok('nothing of ours is there while the daemon does not run');
    const detail = `no daemon runs, and these stand: ${parts.join('; ')}`;
    if (redirecting)
      return fail(
        `${detail}; connections are led to port ${config.capture.port}`,
        `systemctl start mesh-node, or ${REMOVE}`,
      );
    return warn(`${detail} (strict services are refused by them, virtual addresses led on)`, REMOVE);
  },
};

async function routesOfOurs({ run }: CheckSubject): Promise<readonly string[]> {
  const own = String(ROUTE_PROTOCOL);
  const shown = await Promise.all(
    ['-4', '-6'].flatMap((family) => [
      run('ip', [family, 'route', 'show', 'table', 'all', 'proto', own]),
      run('ip', [family, 'rule', 'show']).then((rules) => ({
        stdout: rules.stdout
          .split('\n')
          .filter((line) => line.includes(` proto ${own}`))
          .join('\n'),
      })),
    ]),
  );
  return shown
    .flatMap(({ stdout }) => stdout.split('\n').map((line) => line.trim()))
    .filter((line) => line !== '');
}
