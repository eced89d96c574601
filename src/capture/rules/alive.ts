import type { Family } from '../names.ts';
import type { Fragment } from './fragment.ts';
import type { RuleInput } from './input.ts';

/*
 * A dead man's switch in the kernel. Each worker sends a datagram to the capture port on loopback now and then, from its
 * own event loop; a rule of the mangle table notes the time and drops it. What redirects asks that the last one be fresh. When
 * all workers are stopped, killed or gone, redirection ends by itself, without anybody's help.
 */

const CHAIN = 'MESH_ALIVE';
const LIST = { ipv4: 'mesh4', ipv6: 'mesh6' } as const satisfies Record<Family, string>;
/** One entry for all addresses. */
const MASK = { ipv4: '0.0.0.0', ipv6: '::' } as const satisfies Record<Family, string>;

/** Match of a packet that comes while a worker lives, with a space at its end; empty when the switch is off. */
export function aliveMatch(input: RuleInput, family: Family): string {
  const { deadAfter } = input.capture;
  if (deadAfter === 0) return '';
  const seconds = Math.ceil(deadAfter / 1000);
  return `-m recent --rcheck --seconds ${seconds} --name ${LIST[family]} --mask ${MASK[family]} --rdest `;
}

/** Takes note of the workers' signs of life. */
export function aliveFragments(input: RuleInput, family: Family): readonly Fragment[] {
  const { deadAfter, port } = input.capture;
  if (deadAfter === 0) return [];
  const note = `-m recent --set --name ${LIST[family]} --mask ${MASK[family]} --rdest -j DROP`;
  const datagram = `-o lo -p udp -m udp --dport ${port} -m owner --uid-owner ${input.uid}`;
  return [
    { table: 'mangle', chains: new Map([[CHAIN, [`${datagram} ${note}`]]]), jumps: [['OUTPUT', CHAIN]] },
  ];
}
