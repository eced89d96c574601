import type { Channel } from '../io/channel.ts';
import { type ClientAddress, type Endpoint, type Ip, isIpv6 } from '../model/address.ts';
import type { Instance, Service } from '../model/service.ts';
import { encodeProxyHeader, type KnownCaller } from './proxy-v2.ts';

export interface DeliveryDependencies {
  /** A plain connection from whichever address of this host the route has. */
  direct(endpoint: Endpoint): Channel;
  /** A connection from this address of this host. */
  directFrom(localIp: Ip, endpoint: Endpoint): Channel;
  /** A connection whose source is an address of another host. */
  transparent(source: Endpoint, endpoint: Endpoint): Channel;
  /** True for every address of this host, loopback included. */
  isOwnAddress(ip: Ip): boolean;
}

/**
 * The last leg to an instance, and what it sees of the caller there (`source` of its service). Whether bytes came by
 * a tunnel or from a caller on this host makes no difference.
 */
export class Delivery {
  readonly #deps: DeliveryDependencies;

  constructor(dependencies: DeliveryDependencies) {
    this.#deps = dependencies;
  }

  /** To an instance of this host. Failures arrive as `close` of the channel. */
  here(service: Service, instance: Instance, caller: KnownCaller): Channel {
    if (service.source !== 'transparent') return this.there(service, instance, caller);
    const { address } = caller;
    const to = instance.address;
    // Without a caller's address that the instance's family can express there is only this node's own.
    if (address === undefined || isIpv6(address.ip) !== isIpv6(to.ip)) return this.#deps.direct(to);
    // A caller of this host has its port in use itself; its address is ours, and needs no privilege.
    return this.#deps.isOwnAddress(address.ip)
      ? this.#deps.directFrom(address.ip, to)
      : this.#deps.transparent(address, to);
  }

  /** To an instance of another host, without its agent: it sees this host's address, which is the caller's. */
  there(service: Service, instance: Instance, caller: KnownCaller): Channel {
    const channel = this.#deps.direct(instance.address);
    // Written before the connection stands: it leaves first, and once for each attempt.
    if (service.source === 'proxy-v2') channel.write(encodeProxyHeader(caller, instance.address));
    return channel;
  }

  /**
   * The address that a peer says its caller has, where a service may be told. A peer speaks for its own callers and for
   * nobody on this host: loopback and own addresses are what local services trust most.
   */
  believed(claimed: ClientAddress | undefined): Endpoint | undefined {
    if (claimed === undefined || !mayBeSource(claimed.ip)) return undefined;
    return this.#deps.isOwnAddress(claimed.ip) ? undefined : claimed;
  }
}

/** Addresses that no other host can have as the source of a connection: unspecified, link-local, multicast, reserved. */
function mayBeSource(ip: Ip): boolean {
  if (!isIpv6(ip)) {
    const first = Number(ip.slice(0, ip.indexOf('.')));
    return first !== 0 && first !== 127 && first < 224 && !ip.startsWith('169.254.');
  }
  return ip !== '::' && ip !== '::1' && !/^(?:ff|fe[89ab])/.test(ip);
}
