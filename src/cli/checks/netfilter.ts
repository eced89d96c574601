import { type Family, OWN_PREFIX } from '../../capture/names.ts';
import type { Backend } from '../../capture/netfilter.ts';
import type { Config } from '../../config/schema.ts';
import { type Check, type CheckSubject, fail, listed, ok, skip, warn } from './check.ts';
import { AS_ROOT, openNetfilter, otherRules } from './other-rules.ts';

/** Where iptables-legacy says which tables it has made; looking does not make any. */
const LEGACY_TABLES = ['/proc/net/ip_tables_names', '/proc/net/ip6_tables_names'];

/** The backend in use; rules in both shadow each other. */
const iptables: Check = {
  name: 'iptables',
  run: async (subject) => {
    if (!subject.root) return skip(AS_ROOT);
    let backend: Backend;
    try {
      ({ backend } = await openNetfilter(subject));
    } catch (error) {
      return fail((error as Error).message, 'install iptables, or choose another capture.backend');
    }
    const other = await rulesOfOther(subject, backend);
    const without = backend.withoutIpv6 === undefined ? '' : `, no IPv6: ${backend.withoutIpv6}`;
    const told = `${backend.version}, ${backend.families.join(' and ')}${without}`;
    if (other.length === 0) return ok(told);
    const where = backend.kind === 'nft' ? 'legacy' : 'nft';
    const detail = `${told}; ${other.length} rules stand in the ${where} backend as well`;
    const hint = `iptables-${where}-save; use one of the two`;
    return other.some((rule) => rule.includes(OWN_PREFIX))
      ? fail(`${detail}, ours among them`, hint)
      : warn(detail, hint);
  },
};

async function rulesOfOther({ run, read }: CheckSubject, { kind }: Backend): Promise<readonly string[]> {
  if (kind === 'nft') {
    // iptables-legacy-save would make the tables that it is asked for.
    const made = await Promise.all(LEGACY_TABLES.map(read));
    if (made.every((text) => (text ?? '').trim() === '')) return [];
  }
  const variant = kind === 'nft' ? 'legacy' : 'nft';
  const saved = await Promise.all([
    run(`iptables-${variant}-save`, []),
    run(`ip6tables-${variant}-save`, []),
  ]);
  return saved.flatMap(({ stdout }) => stdout.split('\n').filter((line) => line.startsWith('-A ')));
}

const ipset: Check = {
  name: 'ipset',
  run: async ({ run }) => {
    const result = await run('ipset', ['version']);
    const version = /ipset v[\d.]+/.exec(result.stdout)?.[0];
    if (version !== undefined) return ok(version);
    return fail(`ipset does not run: ${result.stderr.trim()}`, 'install ipset');
  },
};

/** One thing that rules of ours are made of. */
interface Extension {
  readonly name: string;
  readonly table: string;
  readonly rule: string;
  /** Whether this configuration cannot do without. */
  needed(config: Config): boolean;
}

const always = (): boolean => true;
const PROBE_SET = 'MESH_PROBE';
const PROBE_PORTS = 'MESH_PROBE_PORT';
const EXTENSIONS: readonly Extension[] = [
  { name: 'REDIRECT', table: 'nat', rule: '-p tcp -j REDIRECT --to-ports 9', needed: always },
  { name: 'DNAT', table: 'nat', rule: '-p tcp -j DNAT --to-destination :9', needed: always },
  { name: 'conntrack', table: 'nat', rule: '-m conntrack --ctstate NEW -j RETURN', needed: always },
  { name: 'owner', table: 'nat', rule: '-m owner --uid-owner 0 -j RETURN', needed: always },
  { name: 'addrtype', table: 'nat', rule: '-m addrtype --dst-type LOCAL -j RETURN', needed: always },
  {
    name: 'set',
    table: 'nat',
    rule: `-p tcp -m set --match-set ${PROBE_SET} dst,dst -j RETURN`,
    needed: always,
  },
  { name: 'REJECT', table: 'filter', rule: '-p tcp -j REJECT --reject-with tcp-reset', needed: always },
  { name: 'MARK', table: 'mangle', rule: '-j MARK --set-xmark 0x1/0x1', needed: always },
  {
    name: 'recent',
    table: 'mangle',
    rule: '-m recent --set --name meshprobe --rdest -j RETURN',
    needed: ({ capture }) => capture.deadAfter > 0,
  },
  {
    name: 'statistic',
    table: 'nat',
    rule: '-m statistic --mode random --probability 0.5 -j RETURN',
    needed: ({ names, capture }) => capture.percent < 100 || names.ipv4 !== 'off' || names.ipv6 !== 'off',
  },
  {
    name: 'string',
    table: 'raw',
    rule: '-p udp -m string --algo bm --icase --hex-string "|04|" -j RETURN',
    needed: ({ names }) => names.ipv4 !== 'off' || names.ipv6 !== 'off',
  },
  {
    name: 'CT',
    table: 'raw',
    rule: '-p udp -j CT --zone 1',
    needed: ({ names }) => names.ipv4 !== 'off' || names.ipv6 !== 'off',
  },
  {
    name: 'cgroup',
    table: 'nat',
    rule: '-m cgroup --path "/" -j RETURN',
    needed: ({ capture }) => capture.only.units.length > 0,
  },
  {
    name: 'connmark',
    table: 'mangle',
    rule: '-m connmark --mark 0x1/0x1 -j CONNMARK --restore-mark --nfmask 0x1 --ctmask 0x1',
    needed: () => false,
  },
  {
    name: 'bitmap:port',
    table: 'mangle',
    rule: `-p tcp -m set --match-set ${PROBE_PORTS} dst -j RETURN`,
    needed: always,
  },
  // Without it strict services are refused in the filter table alone.
  { name: 'security', table: 'security', rule: '-p tcp -j DROP', needed: () => false },
  {
    name: 'NFLOG',
    table: 'mangle',
    rule: '-p tcp -j NFLOG --nflog-group 1 --nflog-size 80',
    needed: ({ capture }) => capture.mode === 'observe',
  },
];

/**
 * Whether kernel and iptables know everything that the rules are made of: rules of each kind are put into a network
 * namespace of the check's own, which is gone when it ends.
 */
const extensions: Check = {
  name: 'extensions',
  run: async (subject) => {
    if (!subject.root) return skip('only root may make a network namespace');
    const { backend } = await openNetfilter(subject);
    const missing: string[] = [];
    const needed: string[] = [];
    for (const family of backend.families) {
      const all = await probe(subject, backend, family, EXTENSIONS);
      if (all === undefined) continue;
      const each = await Promise.all(
        EXTENSIONS.map(async (one) =>
          (await probe(subject, backend, family, [one])) === undefined ? undefined : one,
        ),
      );
      const lacking = each.filter((one) => one !== undefined);
      if (lacking.length === 0) return fail(`rules of all kinds together: ${all}`, 'mesh-node rules print');
      for (const one of lacking)
        (one.needed(subject.config) ? needed : missing).push(`${one.name} (${family})`);
    }
    if (needed.length > 0)
      return fail(
        `not to be had: ${listed(needed, 8)}`,
        'modprobe xt_…; a kernel with the netfilter modules of the distribution',
      );
    if (missing.length > 0)
      return warn(`not to be had, and not needed as configured: ${listed(missing, 8)}`, 'modprobe xt_…');
    return ok(`${EXTENSIONS.map(({ name }) => name).join(' ')} work for ${backend.families.join(' and ')}`);
  },
};

/** Undefined when rules of these kinds could be put in, else what iptables said. */
async function probe(
  { run }: CheckSubject,
  { variant }: Backend,
  family: Family,
  tried: readonly Extension[],
): Promise<string | undefined> {
  const lines = [...new Set(tried.map(({ table }) => table))].flatMap((table) => [
    `*${table}`,
    ...tried.filter((one) => one.table === table).map(({ rule }) => `-A OUTPUT ${rule}`),
    'COMMIT',
  ]);
  const restore = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}${variant}-restore`;
  const inet = family === 'ipv4' ? 'inet' : 'inet6';
  const sets = `ipset create ${PROBE_SET} hash:ip,port family ${inet}; ipset create ${PROBE_PORTS} bitmap:port range 0-65535`;
  const script = `${sets}; exec ${restore} --noflush -w 5`;
  const result = await run('unshare', ['--net', '--', 'sh', '-c', script], `${lines.join('\n')}\n`);
  return result.code === 0
    ? undefined
    : result.stderr.trim().split('\n', 1)[0] || `ended with ${result.code}`;
}

/** What interception is made of. */
export const interceptionChecks: readonly Check[] = [iptables, ipset, extensions, otherRules];
