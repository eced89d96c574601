import type { Config } from '../../config/schema.ts';
import type { Family } from '../names.ts';
import type { Fragment } from './fragment.ts';

/*
 * Mode `observe`: every TCP connection that begins is shown to the agent, and goes where it was going. Nothing waits for
 * the agent: while nobody reads, the kernel drops what it would have shown.
 *
 *   mangle OUTPUT → MESH_SEE              loopback, the daemon's own user: RETURN; TCP SYN → NFLOG
 *   mangle PREROUTING → MESH_SEE_PRE      TCP SYN from a declared bridge → NFLOG
 *
 * In mangle, where destinations are still those that the program asked for: nat may change them next.
 */

const SEE = 'MESH_SEE';
const SEE_PRE = 'MESH_SEE_PRE';
const LOOPBACK = { ipv4: '127.0.0.0/8', ipv6: '::1/128' } as const satisfies Record<Family, string>;
/** Enough for IP and TCP headers: what the reader of the group asks for. */
const COPY_BYTES = 80;

/** All that these rules depend on. */
interface ObserveRuleInput {
  readonly capture: Pick<Config['capture'], 'mode' | 'bridges' | 'observeGroup'>;
  /** Numeric user id of the daemon. */
  readonly uid: number;
}

/** What mode `observe` adds to the tables of one family; nothing in other modes. */
export function observeFragments({ capture, uid }: ObserveRuleInput, family: Family): readonly Fragment[] {
  const { mode, bridges, observeGroup } = capture;
  if (mode !== 'observe') return [];
  const shown = `-p tcp -m tcp --syn -j NFLOG --nflog-group ${observeGroup} --nflog-size ${COPY_BYTES}`;
  const out = [`-d ${LOOPBACK[family]} -j RETURN`, `-m owner --uid-owner ${uid} -j RETURN`, shown];
  const bridged = bridges.length > 0;
  return [
    {
      table: 'mangle',
      chains: new Map<string, readonly string[]>([
        [SEE, out],
        ...(bridged ? [[SEE_PRE, bridges.map((bridge) => `-i ${bridge} ${shown}`)] as const] : []),
      ]),
      jumps: [['OUTPUT', SEE], ...(bridged ? [['PREROUTING', SEE_PRE] as const] : [])],
    },
  ];
}
