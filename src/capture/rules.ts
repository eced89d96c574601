import type { Config } from '../config/schema.ts';
import type { AllowEntry, AllowList } from './allow-list.ts';
import { emptyTable, type LiveTable, normalRule, ownChains, ownJumps } from './live-table.ts';
import { type ChainName, chains, type Family, setNames } from './names.ts';

/*
 * The rules, as a pure function. What a new connection meets, in order:
 *
 *   OUTPUT → MESH_OUT       loopback, the daemon's own user, the daemon's own ports: RETURN
 *                           TCP SYN (mode services: to a member of the set) → MESH_CATCH
 *   PREROUTING → MESH_PRE   own ports (mode all: every address of the host): RETURN
 *                           TCP SYN from a declared bridge → MESH_CATCH
 *   MESH_CATCH              protected, then allow-list: RETURN; the rest: REDIRECT
 *
 * `--syn`, because on a host without any other NAT rule a plain REDIRECT resets the connections that exist.
 */

/** All that the rules depend on. */
export interface RuleInput {
  readonly capture: Pick<Config['capture'], 'mode' | 'port' | 'bridges'>;
  /** Numeric user id of the daemon: a name would ask NSS, which may hang on a network that we redirect. */
  readonly uid: number;
  /** Ports that the daemon listens on beside `capture.port`: tunnel, metrics. */
  readonly ports: readonly number[];
  /** Entries that hold before the file's: `capture.protect`. */
  readonly protected: AllowList;
  readonly allowList: AllowList;
}

/** What the nat table of one family is to hold of ours. */
export interface FamilyPlan {
  readonly family: Family;
  readonly chains: ReadonlyMap<ChainName, readonly string[]>;
  /** Built-in chain → chain of ours; the jump is its first rule, and there once. */
  readonly jumps: ReadonlyMap<string, ChainName>;
}

const KEEP_RULE = '-m conntrack --ctstate NEW -j RETURN';
const LOOPBACK = { ipv4: '127.0.0.0/8', ipv6: '::1/128' } as const satisfies Record<Family, string>;

/** The rule of an entry, or undefined when it is of the other family. */
function allowRule(entry: AllowEntry, family: Family): string | undefined {
  const { network, ports } = entry;
  if (network !== undefined && network.family !== family) return undefined;
  const parts: string[] = [];
  if (network !== undefined && network.prefix > 0) parts.push(`-d ${network.address}/${network.prefix}`);
  if (ports !== undefined) {
    const range = ports.first === ports.last ? `${ports.first}` : `${ports.first}:${ports.last}`;
    parts.push(`-p tcp -m tcp --dport ${range}`);
  }
  return [...parts, '-j RETURN'].join(' ');
}

/** The rules of one family. Mode `off` has none. */
export function planRules(input: RuleInput, family: Family): FamilyPlan {
  const { mode, port, bridges } = input.capture;
  if (mode === 'off') return { family, chains: new Map(), jumps: new Map() };

  const member = mode === 'services' ? ` -m set --match-set ${setNames[family].live} dst,dst` : '';
  const caught = `-p tcp -m tcp --syn${member} -j ${chains.catch}`;
  const ownPorts = [...new Set([port, ...input.ports])].map(
    (own) => `-p tcp -m addrtype --dst-type LOCAL -m tcp --dport ${own} -j RETURN`,
  );
  const out = [
    `-d ${LOOPBACK[family]} -j RETURN`,
    `-m owner --uid-owner ${input.uid} -j RETURN`,
    ...ownPorts,
    caught,
  ];
  const pre =
    bridges.length === 0
      ? []
      : [
          ...(mode === 'all' ? ['-m addrtype --dst-type LOCAL -j RETURN'] : ownPorts),
          ...bridges.map((bridge) => `-i ${bridge} ${caught}`),
        ];
  const exempt = [...input.protected, ...input.allowList].map((entry) => allowRule(entry, family));
  const redirect = [
    ...new Set(exempt.filter((rule) => rule !== undefined)),
    `-p tcp -j REDIRECT --to-ports ${port}`,
  ];
  return {
    family,
    chains: new Map<ChainName, readonly string[]>([
      [chains.keep, [KEEP_RULE]],
      [chains.catch, redirect],
      [chains.out, out],
      [chains.pre, pre],
    ]),
    jumps: new Map<string, ChainName>([
      ['OUTPUT', chains.out],
      ...(bridges.length === 0 ? [] : [['PREROUTING', chains.pre] as const]),
    ]),
  };
}

/** True when the jumps of a table are exactly those of the plan: each once, each first in its chain. */
function jumpsStand(plan: FamilyPlan, live: LiveTable): boolean {
  const found = ownJumps(live);
  if (found.length !== plan.jumps.size) return false;
  return [...plan.jumps].every(([builtin, chain]) => {
    const first = live.get(builtin)?.[0];
    return first !== undefined && normalRule(first) === normalRule(`-j ${chain}`);
  });
}

/**
 * The exact input of `iptables-restore --noflush` that brings the nat table to the plan in one commit, whatever was
 * there: on a table without a trace of ours (the default) it is what `mesh-node rules print` shows. Jumps that
 * stand right are left alone; others are taken out and inserted anew in the same commit. Empty when there is
 * nothing to do (mode `off` on a table without chains of ours).
 */
export function renderRules(plan: FamilyPlan, live: LiveTable = emptyTable): string {
  if (plan.chains.size === 0) return renderWithdraw(live);
  const lines = ['*nat'];
  // Chains of another version of ours go: nothing leads to them once the jumps below are done.
  const stale = ownChains(live).filter((chain) => !plan.chains.has(chain as ChainName));
  for (const chain of [...plan.chains.keys(), ...stale]) lines.push(`:${chain} - [0:0]`);
  for (const [chain, rules] of plan.chains) for (const rule of rules) lines.push(`-A ${chain} ${rule}`);
  if (!jumpsStand(plan, live)) {
    for (const { chain, rule } of ownJumps(live)) lines.push(`-D ${chain} ${rule}`);
    for (const [builtin, chain] of plan.jumps) lines.push(`-I ${builtin} 1 -j ${chain}`);
  }
  for (const chain of stale) lines.push(`-X ${chain}`);
  return `${lines.join('\n')}\nCOMMIT\n`;
}

/**
 * The fail-open flip: empties every chain of ours but `MESH_KEEP`, so that new connections go direct and live
 * redirected ones go on. Empty when the table has no chain of ours.
 */
export function renderWithdraw(live: LiveTable): string {
  const own = ownChains(live);
  if (own.length === 0) return '';
  const declared = own.map((chain) => `:${chain} - [0:0]`);
  const keep = own.includes(chains.keep) ? [`-A ${chains.keep} ${KEEP_RULE}`] : [];
  return `${['*nat', ...declared, ...keep, 'COMMIT'].join('\n')}\n`;
}

/**
 * Takes every trace of ours out of the table, jumps from other tools' chains included. Live redirected connections
 * are reset when no other NAT rule is left: withdraw first, remove when they have drained. Empty when there is none.
 */
export function renderRemove(live: LiveTable): string {
  const own = ownChains(live);
  if (own.length === 0) return '';
  const lines = ['*nat', ...own.map((chain) => `:${chain} - [0:0]`)];
  for (const { chain, rule } of ownJumps(live)) lines.push(`-D ${chain} ${rule}`);
  for (const chain of own) lines.push(`-X ${chain}`);
  return `${lines.join('\n')}\nCOMMIT\n`;
}
