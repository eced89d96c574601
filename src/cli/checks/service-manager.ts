import { type Check, type CheckResult, fail, ok, skip, warn, worst } from './check.ts';

const UNITS = ['mesh-node.service', 'mesh-node-zone-agent.service'] as const;
const PROPERTIES = [
  'LoadState',
  'ActiveState',
  'SubState',
  'UnitFileState',
  'DropInPaths',
  'LimitNOFILE',
  'NRestarts',
];
/** Two descriptors for each connection, and some for tunnels, files and the loop. */
const SPARE_DESCRIPTORS = 1024;

/** State of the unit, and what drop-ins make of it. */
const unit: Check = {
  name: 'unit',
  run: async ({ config, run, read }) => {
    if ((await read('/proc/1/comm'))?.trim() !== 'systemd') return skip('systemd does not run here');
    const states = await Promise.all(
      UNITS.map(async (name): Promise<Readonly<Record<string, string>>> => {
        const shown = await run('systemctl', ['show', name, `--property=${PROPERTIES.join(',')}`]);
        return { ...parseProperties(shown.stdout), name };
      }),
    );
    const loaded = states.filter((one) => one['LoadState'] === 'loaded');
    const used = loaded.find((one) => one['ActiveState'] !== 'inactive') ?? loaded[0];
    if (used === undefined) return skip('no unit of mesh-node is installed');
    const name = used['name'] ?? '';
    const dropIns = used['DropInPaths'] ?? '';
    const restarts = Number(used['NRestarts'] ?? 0);
    const limit = used['LimitNOFILE'];
    const needed = 2 * config.limits.connections + SPARE_DESCRIPTORS;
    const results: CheckResult[] = [];
    if (used['ActiveState'] === 'failed') results.push(fail(`${name} has failed`, `journalctl -u ${name}`));
    if (limit !== undefined && limit !== 'infinity' && Number(limit) < needed) {
      const detail = `${name} allows ${limit} descriptors, limits.connections ${config.limits.connections} needs ${needed}`;
      results.push(warn(detail, `systemctl edit ${name}: LimitNOFILE=${needed}`));
    }
    if (used['UnitFileState'] === 'disabled')
      results.push(
        warn(`${name} is ${used['ActiveState']}, and not started at boot`, `systemctl enable ${name}`),
      );
    const more = [
      ...(dropIns === '' ? [] : [`drop-ins ${dropIns}`]),
      ...(restarts > 0 ? [`restarted ${restarts} times`] : []),
    ];
    const told = `${name} is ${used['ActiveState']} (${used['SubState']}), ${used['UnitFileState']}`;
    return worst(results) ?? ok([told, ...more].join('; '));
  },
};

function parseProperties(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    text.split('\n').flatMap((line) => {
      const at = line.indexOf('=');
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    }),
  );
}

/** Programs that put in, flush and reload rules of their own; ours come back after that, within a bound. */
const firewalls: Check = {
  name: 'firewalls',
  run: async ({ config, run, read }) => {
    const active: string[] = [];
    if (/^ENABLED=yes/m.test((await read('/etc/ufw/ufw.conf')) ?? '')) active.push('ufw');
    if ((await run('firewall-cmd', ['--state'])).stdout.trim() === 'running') active.push('firewalld');
    if (active.length === 0) return ok('neither ufw nor firewalld is active');
    return ok(
      `${active.join(' and ')} active: a reload takes our rules out for up to ${config.capture.reassertInterval} ms`,
    );
  },
};

export const serviceManagerChecks: readonly Check[] = [unit, firewalls];
