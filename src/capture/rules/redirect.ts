import { chains, destinationIn, type Family } from '../names.ts';
import { aliveMatch } from './alive.ts';
import { callerMatch, isDestinationExemption } from './exemption.ts';
import type { Fragment } from './fragment.ts';
import { exemptDestinations, type RuleInput } from './input.ts';
import { downRules, refusing } from './refuse.ts';
import { selfTestRules } from './self-test.ts';

/*
 * Redirection: what a new connection meets in the nat table, in order.
 *
 *   OUTPUT → MESH_OUT       loopback, the daemon's own user, the daemon's own ports, exempt users and units: RETURN
 *                           TCP SYN to the address of the self-test → MESH_CATCH
 *                           TCP SYN (mode services: to a member of the set) → MESH_CATCH
 *                           (`capture.only`: one such rule for each user and unit)
 *   PREROUTING → MESH_PRE   own ports (mode all: every address of the host): RETURN
 *                           TCP SYN from a declared bridge → MESH_CATCH
 *   MESH_CATCH              protected, then allow-list: RETURN; while a worker lives, drawn by `capture.percent` → MESH_TAKE
 *   MESH_TAKE               nobody would answer: refused; the rest: REDIRECT
 *
 * `--syn`, because on a host without any other NAT rule a plain REDIRECT resets the connections that exist.
 */

const CATCH = 'MESH_CATCH';
const TAKE = 'MESH_TAKE';
const OUT = 'MESH_OUT';
const PRE = 'MESH_PRE';

const KEEP_RULE = '-m conntrack --ctstate NEW -j RETURN';
const LOOPBACK = { ipv4: '127.0.0.0/8', ipv6: '::1/128' } as const satisfies Record<Family, string>;

/** The inert rule; in every state, for the sake of connections that live. */
export const keepFragment: Fragment = {
  table: 'nat',
  chains: new Map([[chains.keep, [KEEP_RULE]]]),
  jumps: [],
};

/** A share of connections, in the steps that the kernel knows (2^-31), as iptables-save prints it. */
function shareMatch(percent: number): string {
  if (percent >= 100) return '';
  const probability = (Math.round((percent / 100) * 2 ** 31) / 2 ** 31).toFixed(11);
  return `-m statistic --mode random --probability ${probability} `;
}

/** Whose connections are taken: a match each; one empty match for everybody. */
function takenCallers({ only }: RuleInput): readonly string[] {
  if (only === undefined) return [''];
  return [...only.uids.map((uid) => ({ uid })), ...only.cgroups].map((caller) => `${callerMatch(caller)} `);
}

/** Redirection of one family; in state `applied` only. Nothing in modes that intercept nothing. */
export function redirectFragments(input: RuleInput, family: Family): readonly Fragment[] {
  const { mode, port, bridges, percent } = input.capture;
  if (mode !== 'services' && mode !== 'all') return [];

  const member = mode === 'services' ? `${destinationIn('redirect', family)} ` : '';
  // Gone to, not jumped to: whoever is drawn to go direct must not be drawn again by the next rule.
  const caught = (callers: string): string => `-p tcp -m tcp --syn ${member}${callers}-g ${CATCH}`;
  const ownPorts = [...new Set([port, ...input.ports])].map(
    (own) => `-p tcp -m addrtype --dst-type LOCAL -m tcp --dport ${own} -j RETURN`,
  );
  const exemptCallers = input.exempt.flatMap((exemption) =>
    isDestinationExemption(exemption) ? [] : [`${callerMatch(exemption)} -j RETURN`],
  );
  // A container's user and unit are not known here: with a choice of callers it is none of them.
  const bridged = input.only === undefined ? bridges : [];
  const pre = [
    ...(mode === 'all' ? ['-m addrtype --dst-type LOCAL -j RETURN'] : ownPorts),
    ...bridged.map((bridge) => `-i ${bridge} ${caught('')}`),
  ];
  return [
    {
      table: 'nat',
      chains: new Map<string, readonly string[]>([
        [
          CATCH,
          [
            ...exemptDestinations(input, family),
            `-p tcp ${aliveMatch(input, family)}${shareMatch(percent)}-j ${TAKE}`,
          ],
        ],
        [TAKE, [...downRules(family), `-p tcp -j REDIRECT --to-ports ${port}`]],
        ...refusing,
        [
          OUT,
          [
            `-d ${LOOPBACK[family]} -j RETURN`,
            `-m owner --uid-owner ${input.uid} -j RETURN`,
            ...ownPorts,
            ...exemptCallers,
            ...selfTestRules(input, family, CATCH),
            ...takenCallers(input).map(caught),
          ],
        ],
        ...(bridged.length === 0 ? [] : [[PRE, pre] as const]),
      ]),
      jumps: [['OUTPUT', OUT], ...(bridged.length === 0 ? [] : [['PREROUTING', PRE] as const])],
    },
  ];
}
