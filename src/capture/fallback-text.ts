import type { Config } from '../config/schema.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { SetPlan } from './capture-plan.ts';
import { families, setNames, setRoles } from './names.ts';
import type { Backend } from './netfilter.ts';
import { answersNames } from './rules/dns.ts';
import type { RuleInput } from './rules/input.ts';
import { planNothing, planRules } from './rules/plan.ts';
import { renderRules } from './rules/render.ts';
import { renderSet } from './sets.ts';

/** What systemd/withdraw-rules reads, by name of the file. */
export const fallbackFiles = ['sets', 'routes', 'rules-ipv4', 'rules-ipv6', 'hosts'] as const;
export type FallbackFile = (typeof fallbackFiles)[number];
/** The text of each; undefined: there is to be no such file. */
export type FallbackTexts = Readonly<Record<FallbackFile, string | undefined>>;

/** Last line of each file: without it a file was not written to its end, and is not used. */
const END = '# end\n';

/** Most lines for the hosts file: the C library reads all of it for every name that is looked up. */
export const MAX_HOSTS_LINES = 8_192;

/** All that the files depend on. */
export interface FallbackInput {
  readonly rules: RuleInput;
  readonly sets: SetPlan;
  readonly backend: Backend;
  readonly snapshot: Snapshot;
}

/** True where something has to hold without an agent: refusals of strict services, virtual addresses. */
export function holdsWithoutAgent(names: Pick<Config['names'], 'ipv4' | 'ipv6'>, sets: SetPlan): boolean {
  return (
    names.ipv4 !== 'off' || names.ipv6 !== 'off' || families.some((family) => sets.strict[family].size > 0)
  );
}

/**
 * What has to hold when no agent runs, as the shell script puts it in place. Where that is nothing there are no rules: the
 * script then empties what redirects, and touches nothing else.
 */
export function renderFallback(input: FallbackInput): FallbackTexts {
  const { rules, sets, backend, snapshot } = input;
  if (!holdsWithoutAgent(rules.names, sets))
    return {
      sets: undefined,
      routes: undefined,
      'rules-ipv4': undefined,
      'rules-ipv6': undefined,
      hosts: END,
    };
  const name = backend.variant === '' ? 'plain' : backend.kind;
  const planned = families.map((family) =>
    backend.families.includes(family) ? planRules(rules, family, 'unattended') : planNothing(family),
  );
  const [ipv4 = '', ipv6 = ''] = planned.map((plan) => `# backend ${name}\n${renderRules(plan)}${END}`);
  const needed = backend.families.flatMap((family) =>
    setRoles
      .filter((role) => (family === 'ipv4' ? ipv4 : ipv6).includes(` ${setNames(role, family).live} `))
      .map((role) => renderSet(role, family, sets[role][family])),
  );
  const routes = planned.flatMap(({ family, routes = [] }) =>
    routes
      .filter(({ kind }) => kind === 'route')
      .map(({ spec }) => `${family === 'ipv4' ? '-4' : '-6'} ${spec}\n`),
  );
  const names = answersNames({ mode: rules.capture.mode, names: rules.names })
    ? hostsLines(snapshot, rules.names.domain)
    : [];
  return {
    sets: needed.join('') + END,
    routes: routes.join('') + END,
    'rules-ipv4': ipv4,
    'rules-ipv6': ipv6,
    hosts: names.map((line) => `${line}\n`).join('') + END,
  };
}

/** `ADDRESS NAME` for every virtual address, by name: strict services too, so that their callers are refused at once. */
function hostsLines(snapshot: Snapshot, domain: string): readonly string[] {
  const lines: string[] = [];
  for (const { name, virtual } of snapshot.services.values())
    for (const ip of virtual ?? []) lines.push(`${ip} ${name}.${domain}`);
  const nameOf = (line: string): string => line.slice(line.indexOf(' '));
  lines.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : nameOf(a) > nameOf(b) ? 1 : a < b ? -1 : 1));
  return lines.slice(0, MAX_HOSTS_LINES);
}
