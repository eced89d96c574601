import { destinationIn, type Family, marks } from '../names.ts';
import type { Fragment } from './fragment.ts';
import { exemptDestinations, type RuleInput } from './input.ts';

/*
 * Strict services fail closed, in both directions and in every state: only the agent may connect to their addresses, and
 * only the agent of this host to instances that it hosts. The first packet of a connection is looked at twice:
 *
 *   mangle OUTPUT → MESH_MARK_OUT      to a strict address, not the daemon's own user → MESH_MARK
 *   mangle PREROUTING → MESH_MARK_PRE  from outside to an instance hosted here → MESH_MARK
 *                                      from outside to its port at any address of this host → MESH_NEAR → MESH_MARK
 *   MESH_MARK                          protected, allow-list: RETURN; the rest is marked
 *   filter OUTPUT → MESH_GUARD         the daemon's own user, and what was redirected: RETURN; marked, strict: refused
 *   filter INPUT → MESH_IN             local, and what was redirected: RETURN; marked, hosted, its port: refused
 *   filter FORWARD → MESH_FWD          marked, strict: refused
 *
 * Marked before any nat rule can change the destination (docker publishes a container's port that way), refused after
 * redirection has had its chance. Live connections are not touched: only packets that open one are looked at.
 *
 * A server that listens on every address answers at addresses that no registry knows: its port is closed at all of them
 * (MESH_NEAR), but for those that another service declares, and for what the daemon itself listens on.
 *
 * The security table comes after the filter table, with the same chains. What another tool accepts before our jumps are met
 * goes on to the next table; REJECT is the filter table's alone, so it is dropped there.
 */

const MARK = 'MESH_MARK';
const MARK_OUT = 'MESH_MARK_OUT';
const MARK_PRE = 'MESH_MARK_PRE';
const NEAR = 'MESH_NEAR';
const GUARD = 'MESH_GUARD';
const IN = 'MESH_IN';
const FWD = 'MESH_FWD';
const REFUSE = 'MESH_REFUSE';

const NOT_NEW = '-p tcp -m tcp ! --syn -j RETURN';

/** What becomes of a refused connection: told at once where the table can, silent where it cannot. */
const REFUSALS = {
  filter: 'REJECT --reject-with tcp-reset',
  security: 'DROP',
} as const;

/** Refusals of one family; the same in every state. */
export function strictFragments(input: RuleInput, family: Family): readonly Fragment[] {
  return [
    markFragment(input, family),
    closedFragment('filter', input, family),
    ...(input.backstop.includes(family) ? [closedFragment('security', input, family)] : []),
  ];
}

/** What the rules ask of a packet that opens a connection. */
function asked(family: Family) {
  const opens = '-p tcp -m tcp --syn';
  return {
    toStrict: `${opens} ${destinationIn('strict', family)}`,
    toHosted: `${opens} ${destinationIn('hosted', family)}`,
    toPort: `${opens} ${destinationIn('ports', family)}`,
  };
}

/** A port of a hosted instance, at whatever address: not somebody else's, not one that the daemon listens on. */
function nearRules(input: RuleInput, family: Family, verdict: string): readonly string[] {
  const own = [...new Set([input.capture.port, ...input.ports])];
  return [
    `${destinationIn('beside', family)} -j RETURN`,
    ...own.map((port) => `-p tcp -m tcp --dport ${port} -j RETURN`),
    `-j ${verdict}`,
  ];
}

const ownUser = ({ uid }: RuleInput): string => `-m owner --uid-owner ${uid} -j RETURN`;

function markFragment(input: RuleInput, family: Family): Fragment {
  const { toStrict, toHosted, toPort } = asked(family);
  return {
    table: 'mangle',
    chains: new Map([
      [MARK, [...exemptDestinations(input, family), `-j MARK --set-xmark ${marks.refuse}`]],
      [NEAR, nearRules(input, family, MARK)],
      [MARK_OUT, [NOT_NEW, ownUser(input), `${toStrict} -j ${MARK}`]],
      [
        MARK_PRE,
        [`! -i lo ${toHosted} -j ${MARK}`, `! -i lo ${toPort} -m addrtype --dst-type LOCAL -j ${NEAR}`],
      ],
    ]),
    jumps: [
      ['OUTPUT', MARK_OUT],
      ['PREROUTING', MARK_PRE],
    ],
  };
}

function closedFragment(table: keyof typeof REFUSALS, input: RuleInput, family: Family): Fragment {
  const { toStrict, toHosted, toPort } = asked(family);
  const refused = REFUSALS[table];
  const marked = `-p tcp -m mark --mark ${marks.refuse} -j ${refused}`;
  const taken = `-p tcp -m tcp --dport ${input.capture.port} -j RETURN`;
  const takenHere = `-p tcp -m addrtype --dst-type LOCAL -m tcp --dport ${input.capture.port} -j RETURN`;
  return {
    table,
    chains: new Map([
      [REFUSE, [...exemptDestinations(input, family), `-p tcp -j ${refused}`]],
      [NEAR, nearRules(input, family, REFUSE)],
      [GUARD, [NOT_NEW, ownUser(input), takenHere, marked, `${toStrict} -j ${REFUSE}`]],
      [IN, [NOT_NEW, '-i lo -j RETURN', taken, marked, `${toHosted} -j ${REFUSE}`, `${toPort} -j ${NEAR}`]],
      [FWD, [NOT_NEW, marked, `${toStrict} -j ${REFUSE}`]],
    ]),
    jumps: [
      ['OUTPUT', GUARD],
      ['INPUT', IN],
      ['FORWARD', FWD],
    ],
  };
}
