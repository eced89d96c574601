import { getServers, Resolver } from 'node:dns/promises';
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { ResolveAnswer, ServicesAnswer } from '../../admin/api.ts';
import { ROUTE_PROTOCOL } from '../../capture/rules/fragment.ts';
import { parseEndpoint } from '../../model/address.ts';
import { type Check, type CheckResult, type CheckSubject, fail, ok, skip, warn, worst } from './check.ts';

/** Bound on the answer of one nameserver. */
const NAMESERVER_MS = 2_000;
/** Services that are asked for, to find one with a virtual address. */
const MOST_SERVICES = '50';

interface Route {
  readonly dst: string;
  readonly dev?: string;
  readonly protocol?: string;
  readonly type?: string;
}

const families = [
  ['ipv4', '-4'],
  ['ipv6', '-6'],
] as const;

/** Virtual addresses are nobody else's, and there is a way to them: the kernel looks for one before it asks any rule. */
const virtualAddresses: Check = {
  name: 'virtual-addresses',
  run: async (subject) => {
    const results = await Promise.all(families.map(([family, flag]) => lookAtNetwork(subject, family, flag)));
    return worst(results) ?? ok(results.map(({ detail }) => detail).join('; '));
  },
};

async function lookAtNetwork(
  subject: CheckSubject,
  family: 'ipv4' | 'ipv6',
  flag: string,
): Promise<CheckResult> {
  const network = subject.config.names[family];
  if (network === 'off') return skip(`${family}: off`);
  if (family === 'ipv6' && !(await subject.read('/proc/net/if_inet6'))?.trim()) return skip('no IPv6 here');
  const shown = await subject.run('ip', ['-json', flag, 'route', 'show', 'table', 'all']);
  if (shown.code !== 0) return fail(`ip route: ${shown.stderr.trim()}`, 'install iproute2');
  const routes = JSON.parse(shown.stdout.trim() || '[]') as readonly Route[];
  const isOurs = (route: Route): boolean => route.protocol === String(ROUTE_PROTOCOL);
  const foreign = routes.find((route) => !isOurs(route) && overlap(route.dst, network));
  if (foreign !== undefined) {
    const by = `${foreign.type ?? 'route'} ${foreign.dst} via ${foreign.dev ?? 'nothing'}`;
    return fail(
      `names.${family} ${network} is used by others: ${by}`,
      `choose another network in names.${family}`,
    );
  }
  if ((await subject.daemon()) === undefined) return ok(`${network} is free`);
  if (routes.some((route) => isOurs(route) && route.dst === network)) return ok(`${network} has its route`);
  return fail(
    `there is no route for ${network}: connections to virtual addresses end before any rule sees them`,
    `mesh-node rules verify; by hand: ip ${flag} route add ${network} dev lo proto ${ROUTE_PROTOCOL}`,
  );
}

/** True when two networks share addresses; `default` shares none. */
function overlap(a: string, b: string): boolean {
  if (a === 'default' || a === 'unreachable') return false;
  const [first, second] = [a, b].map(parseNetwork);
  if (first === undefined || second === undefined || first[0].kind() !== second[0].kind()) return false;
  // A route to everything, multicast (ff00::/8, 224.0.0.0/4) included, is a default route by another name.
  if (first[1] === 0) return false;
  const bits = Math.min(first[1], second[1]);
  return first[0].match(second[0] as never, bits);
}

function parseNetwork(text: string): [ipaddr.IPv4 | ipaddr.IPv6, number] | undefined {
  const [base = '', prefix] = text.split('/');
  if (isIP(base) === 0) return undefined;
  const address = ipaddr.parse(base);
  return [address, prefix === undefined ? (address.kind() === 'ipv4' ? 32 : 128) : Number(prefix)];
}

/** A name of a service leads programs of this host to its virtual address, whichever way they resolve names. */
const names: Check = {
  name: 'names',
  run: async (subject) => {
    if ((await subject.daemon()) === undefined) return skip('the daemon does not run');
    const known = await serviceWithAddress(subject);
    if (known === undefined) return skip('no service has a virtual address');
    const name = `${known.name}.${subject.config.names.domain}`;
    const found = await subject.run('getent', ['ahosts', name]);
    const addresses = new Set(found.stdout.split('\n').flatMap((line) => line.split(/\s+/, 1)[0] || []));
    const wanted = known.addresses.find((ip) => addresses.has(ip));
    if (wanted !== undefined) return ok(`${name} is ${wanted}`);
    const instead = addresses.size === 0 ? 'does not resolve' : `is ${[...addresses].join(', ')}`;
    return fail(
      `${name} ${instead}, and should be ${known.addresses.join(' or ')}`,
      `queries are taken on their way to a nameserver. ${await wayToNameserver(subject)}`,
    );
  },
};

/** What may be wrong with that way. */
async function wayToNameserver({ run }: CheckSubject): Promise<string> {
  const [server] = getServers();
  if (server === undefined) return 'There is none in /etc/resolv.conf: 127.0.0.1 will do';
  // A port is named only where it is not the usual one.
  const route = await run('ip', ['route', 'get', parseEndpoint(server)?.ip ?? server]);
  if (route.code !== 0)
    return `This host has no route to ${server}, the first in /etc/resolv.conf: 127.0.0.1 will do`;
  return 'Does /etc/nsswitch.conf say "hosts: … dns"? mesh-node rules verify';
}

async function serviceWithAddress(
  subject: CheckSubject,
): Promise<{ readonly name: string; readonly addresses: readonly string[] } | undefined> {
  const known = await subject.get<ServicesAnswer>('/v1/services', { limit: MOST_SERVICES });
  for (const { name } of known?.services ?? []) {
    const answer = await subject.get<ResolveAnswer>('/v1/resolve', { name });
    const addresses = answer?.services[0]?.virtual ?? [];
    if (addresses.length > 0) return { name, addresses };
  }
  return undefined;
}

/** All other names resolve as ever: the first nameserver answers, whatever it says. */
const resolver: Check = {
  name: 'resolver',
  run: async () => {
    const asked = new Resolver({ timeout: NAMESERVER_MS, tries: 1 });
    const [server] = asked.getServers();
    if (server === undefined)
      return warn('no nameserver is configured', 'names of services need one to be asked: /etc/resolv.conf');
    asked.setServers([server]);
    // A name that nobody has (RFC 6761): "there is none" is an answer, too.
    const failure = await asked.resolve4('mesh-node-check.invalid').then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error.code,
    );
    const answered = ['ENOTFOUND', 'ENODATA', 'EREFUSED', 'ESERVFAIL', 'EFORMERR', 'ENOTIMP', undefined];
    if (answered.includes(failure)) return ok(`nameserver ${server} answers`);
    return warn(
      `nameserver ${server} does not answer: ${failure}`,
      `dig @${server} example.com; without mesh-node: systemctl stop mesh-node`,
    );
  },
};

/** Answers of a container to a foreign address come in by its bridge, marked: a reverse path filter must not look at the mark. */
const reversePath: Check = {
  name: 'rp-filter',
  run: async ({ config, read, run }) => {
    const rules = await run('ip', ['-4', 'rule', 'show']);
    if (!rules.stdout.includes(` proto ${ROUTE_PROTOCOL}`))
      return skip('no service of this host asks for source: transparent');
    const conf = async (scope: string, name: string): Promise<number> =>
      Number(await read(`/proc/sys/net/ipv4/conf/${scope}/${name}`));
    const [filter, mark] = await Promise.all([conf('all', 'rp_filter'), conf('all', 'src_valid_mark')]);
    for (const bridge of config.capture.bridges) {
      // The stricter of the two filters counts (2, loose, is the highest), and either of the two marks.
      const strict = Math.max(filter, await conf(bridge, 'rp_filter')) === 1;
      if (!strict || Math.max(mark, await conf(bridge, 'src_valid_mark')) !== 1) continue;
      return warn(
        `src_valid_mark and rp_filter=1 at ${bridge}: answers of containers with source: transparent are dropped`,
        `sysctl -w net.ipv4.conf.${bridge}.rp_filter=2`,
      );
    }
    return ok('lets in answers to foreign addresses');
  },
};

/** Addresses and names. */
export const networkChecks: readonly Check[] = [virtualAddresses, names, resolver, reversePath];
