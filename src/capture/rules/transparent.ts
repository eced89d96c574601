import { type Family, marks } from '../names.ts';
import { type Fragment, ROUTE_PROTOCOL, type RouteEntry } from './fragment.ts';
import type { RuleInput } from './input.ts';

/*
 * The way back for `source: transparent`. The agent connects to an instance of this host from its caller's address; the
 * answers are addressed to a host far away, and have to come to the agent instead:
 *
 *   mangle OUTPUT → MESH_SEEN          the agent opens a connection from a foreign address: the connection is marked
 *                                      an answer in such a connection: its packet is marked
 *   mangle PREROUTING → MESH_SEEN_PRE  the same for answers of a container
 *   ip rule: marked packets look in a table in which every address is one of this host
 *
 * It stands in every state: connections that live depend on it.
 */

const OUT = 'MESH_SEEN';
const PRE = 'MESH_SEEN_PRE';

/** Routing table of ours, and the preference of the rule that leads to it: before `main` (32766), after `local` (0). */
const TABLE = 109;

/** The bit alone, as masks are written. */
const BIT = marks.deliver.split('/')[1]!;

export function transparentFragments(input: RuleInput): readonly Fragment[] {
  if (!input.transparent) return [];
  const answers =
    `-p tcp -m connmark --mark ${marks.deliver} -m conntrack --ctdir REPLY ` +
    `-j CONNMARK --restore-mark --nfmask ${BIT} --ctmask ${BIT}`;
  const opens =
    `-p tcp -m tcp --syn -m owner --uid-owner ${input.uid} -m addrtype ! --src-type LOCAL ` +
    `-j CONNMARK --set-xmark ${marks.deliver}`;
  return [
    {
      table: 'mangle',
      chains: new Map([
        [OUT, [opens, answers]],
        [PRE, [`! -i lo ${answers}`]],
      ]),
      jumps: [
        ['OUTPUT', OUT],
        ['PREROUTING', PRE],
      ],
    },
  ];
}

export function transparentRoutes(input: RuleInput, family: Family): readonly RouteEntry[] {
  if (!input.transparent) return [];
  const ours = `proto ${ROUTE_PROTOCOL}`;
  return [
    { family, kind: 'route', spec: `local default dev lo table ${TABLE} ${ours}` },
    { family, kind: 'rule', spec: `fwmark ${marks.deliver} lookup ${TABLE} pref ${TABLE} ${ours}` },
  ];
}
