import type { Duplex } from 'node:stream';
import { endpointKey, parseIp } from '../model/address.ts';

/** In place of an address, where the peer is reached inside a stream of another tunnel. */
export const VIA_RELAY = 'via relay';

/** Text of the address at the other end of a connection: `10.0.0.1:80`, `[fd00::1]:80`, or {@link VIA_RELAY}. */
export function remoteAddressOf(
  socket: Duplex & { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined },
): string {
  const ip = parseIp(socket.remoteAddress ?? '');
  const port = socket.remotePort;
  return ip === undefined || port === undefined ? VIA_RELAY : endpointKey({ ip, port });
}
