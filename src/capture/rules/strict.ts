import { destinationIn, type Family, marks } from '../names.ts';
import type { Fragment } from './fragment.ts';
import { exemptDestinations, type RuleInput } from './input.ts';

/*
 * Strict services fail closed, in both directions and in every state: only the agent may connect to their addresses, and
 * only the agent of this host to instances that it hosts. The first packet of a connection is looked at twice:
 *
 *   mangle OUTPUT → MESH_MARK_OUT      to a strict address, not the daemon's own user → MESH_MARK
 *   mangle PREROUTING → MESH_MARK_PRE  from outside to an instance hosted here → MESH_MARK
 *   MESH_MARK                          protected, allow-list: RETURN; the rest is marked
 *   filter OUTPUT → MESH_GUARD         the daemon's own user, and what was redirected: RETURN; marked, strict: refused
 *   filter INPUT → MESH_IN             local, and what was redirected: RETURN; marked, hosted: refused
 *   filter FORWARD → MESH_FWD          marked, strict: refused
 *
 * Marked before any nat rule can change the destination (docker publishes a container's port that way), refused after
 * redirection has had its chance. Live connections are not touched: only packets that open one are looked at.
 */

const MARK = 'MESH_MARK';
const MARK_OUT = 'MESH_MARK_OUT';
const MARK_PRE = 'MESH_MARK_PRE';
const GUARD = 'MESH_GUARD';
const IN = 'MESH_IN';
const FWD = 'MESH_FWD';
const REFUSE = 'MESH_REFUSE';

const NOT_NEW = '-p tcp -m tcp ! --syn -j RETURN';
const RESET = '-p tcp -j REJECT --reject-with tcp-reset';

/** Refusals of one family; the same in every state. */
export function strictFragments(input: RuleInput, family: Family): readonly Fragment[] {
  const exempt = exemptDestinations(input, family);
  const own = `-m owner --uid-owner ${input.uid} -j RETURN`;
  const toStrict = `-p tcp -m tcp --syn ${destinationIn('strict', family)}`;
  const toHosted = `-p tcp -m tcp --syn ${destinationIn('hosted', family)}`;
  const marked = `-p tcp -m mark --mark ${marks.refuse} -j REJECT --reject-with tcp-reset`;
  const taken = `-p tcp -m tcp --dport ${input.capture.port} -j RETURN`;
  const takenHere = `-p tcp -m addrtype --dst-type LOCAL -m tcp --dport ${input.capture.port} -j RETURN`;
  return [
    {
      table: 'mangle',
      chains: new Map([
        [MARK, [...exempt, `-j MARK --set-xmark ${marks.refuse}`]],
        [MARK_OUT, [NOT_NEW, own, `${toStrict} -j ${MARK}`]],
        [MARK_PRE, [`! -i lo ${toHosted} -j ${MARK}`]],
      ]),
      jumps: [
        ['OUTPUT', MARK_OUT],
        ['PREROUTING', MARK_PRE],
      ],
    },
    {
      table: 'filter',
      chains: new Map([
        [REFUSE, [...exempt, RESET]],
        [GUARD, [NOT_NEW, own, takenHere, marked, `${toStrict} -j ${REFUSE}`]],
        [IN, ['-i lo -j RETURN', NOT_NEW, taken, marked, `${toHosted} -j ${REFUSE}`]],
        [FWD, [NOT_NEW, marked, `${toStrict} -j ${REFUSE}`]],
      ]),
      jumps: [
        ['OUTPUT', GUARD],
        ['INPUT', IN],
        ['FORWARD', FWD],
      ],
    },
  ];
}
