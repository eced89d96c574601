import { parseProtected } from '../../capture/allow-list.ts';
import { coverage } from '../../capture/proposal.ts';
import type { ExplicitDependencies } from '../../http/explicit-targets.ts';
import { type Endpoint, type EndpointKey, endpointKey, type Ip, isIpv6 } from '../../model/address.ts';
import type { Snapshot } from '../../model/snapshot.ts';
import { HostLookup } from '../../naming/host-lookup.ts';
import { NamedRoutes } from '../../route/by-name.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { OwnListenerSet } from './own-listeners.ts';

/** Where callers of the explicit proxy may go, by name and by address. */
export class ExplicitWay implements ExplicitDependencies {
  readonly #settings: () => WorkerSettings;
  readonly #snapshot: () => Snapshot;
  readonly #own: OwnListenerSet;
  readonly #names: NamedRoutes;
  readonly #lookup: HostLookup;
  /** `capture.protect`, as it was read last. */
  #protect: readonly string[] | undefined;
  #isProtected: (destination: EndpointKey) => boolean = () => false;

  constructor(settings: () => WorkerSettings, snapshot: () => Snapshot, own: OwnListenerSet) {
    this.#settings = settings;
    this.#snapshot = snapshot;
    this.#own = own;
    this.#names = new NamedRoutes(own, settings().config.names.domain);
    this.#lookup = new HostLookup({ timeoutMs: () => settings().config.names.resolveTimeout });
  }

  find(host: string, port: number | undefined, usual: number) {
    return this.#names.find(this.#snapshot(), host, port, usual);
  }

  resolve(host: string): Promise<readonly Ip[]> {
    return this.#lookup.addresses(host);
  }

  /**
   * The agent is another user than its caller, with another address perhaps, and no rule stops it: what is closed to the
   * caller must not be open through here.
   */
  forbidden(endpoint: Endpoint, local: boolean): string | undefined {
    const { ip } = endpoint;
    if (isNobody(ip)) return 'not the address of a host';
    if (!local && this.#own.isOwnAddress(ip))
      return 'an address of this host, for a caller that is not on it';
    return this.#protects(endpoint) ? 'capture.protect names it' : undefined;
  }

  #protects(endpoint: Endpoint): boolean {
    const { protect } = this.#settings().config.capture;
    if (protect !== this.#protect) {
      this.#protect = protect;
      this.#isProtected = protection(protect);
    }
    return this.#isProtected(endpointKey(endpoint));
  }
}

/** What cannot be read protects everything; the supervisor says what is wrong with it, and a worker must not die of it. */
function protection(protect: readonly string[]): (destination: EndpointKey) => boolean {
  try {
    return coverage(parseProtected(protect));
  } catch {
    return () => true;
  }
}

/** Unspecified (which the kernel takes for loopback), multicast and reserved addresses, virtual ones of no service among them. */
function isNobody(ip: Ip): boolean {
  if (isIpv6(ip)) return ip === '::' || ip.startsWith('ff');
  const first = Number(ip.slice(0, ip.indexOf('.')));
  return first === 0 || first >= 224;
}
