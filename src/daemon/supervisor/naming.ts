import { setImmediate as nextTurn } from 'node:timers/promises';
import { FileTier } from '../../cache/file-tier.ts';
import type { Config } from '../../config/schema.ts';
import { duplicateDescriptor } from '../../io/datagram.ts';
import type { Service } from '../../model/service.ts';
import type { SnapshotDelta } from '../../model/snapshot.ts';
import { type AddressRange, addressRange, inRange } from '../../naming/address-bytes.ts';
import { HostNameResolver, type HostNames } from '../../naming/host-names.ts';
import { NameIndex } from '../../naming/name-index.ts';
import { NameResponder } from '../../naming/responder.ts';
import { resolvedEndpoints, ServiceHosts } from '../../naming/service-hosts.ts';
import { parseVirtualRecord, VirtualAddresses, type VirtualRecord } from '../../naming/virtual-addresses.ts';
import type { Catalogue } from '../../registry/catalogue.ts';
import type { Log } from '../../telemetry/log.ts';
import { hasIpv6, type Listener } from '../succession/listeners.ts';

/** Name of the file with the virtual addresses, in the state directory. */
const FILE = 'virtual-addresses';
/** Records that are taken between two turns of the event loop. */
const LOAD_SLICE = 1000;
/** How often addresses of services that are gone for long are set free. */
const SWEEP_MS = 3_600_000;

/**
 * What this host gives services: virtual addresses, which outlive restarts, and what their `hosts` resolve to here.
 * Answers for the workers while none of them serves.
 */
export class Naming {
  /** Host names resolved at this host, for everybody who needs some. */
  readonly hostNames: HostNameResolver;
  readonly #log: Log;
  readonly #file: FileTier<VirtualRecord>;
  readonly #virtual: VirtualAddresses;
  readonly #hosts = new ServiceHosts();
  readonly #ownHosts: HostNames;
  readonly #index = new NameIndex();
  readonly #responder: NameResponder;
  #config: Config;
  #catalogue: Catalogue | undefined;
  #unfollow: () => void = () => {};
  #sweep: NodeJS.Timeout | undefined;
  #hostsStale = false;

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log.child({ component: 'naming' });
    const { ipv4, ipv6 } = rangesOf(config);
    this.#file = new FileTier<VirtualRecord>({
      path: `${config.daemon.stateDirectory}/${FILE}`,
      writeDelay: config.cache.writeDelay,
      check: parseVirtualRecord,
      log: this.#log,
    });
    this.#virtual = new VirtualAddresses({
      ipv4,
      ipv6,
      reuseAfter: config.names.reuseAfter,
      // Whoever only looks (rules print) writes nothing.
      changed: () => {
        if (this.#catalogue !== undefined) this.#write();
      },
      exhausted: (range) =>
        this.#log.error(
          { network: `${range.base.join('.')}/${range.prefix}` },
          'virtual addresses: none is left; give a wider network in names.ipv4 or names.ipv6',
        ),
    });
    const virtual = [ipv4, ipv6].filter((range) => range !== undefined);
    this.hostNames = new HostNameResolver({
      ...config.names,
      log: this.#log,
      ignored: (ip) => ip.startsWith('127.') || ip === '::1' || virtual.some((range) => inRange(range, ip)),
    });
    this.#ownHosts = this.hostNames.follow((names) => {
      this.#catalogue?.decorateAgain(this.#hosts.usersOf(names));
    });
    this.#responder = new NameResponder({
      names: () => ({
        domain: this.#config.names.domain,
        ttlMs: this.#config.names.ttl,
        snapshot: this.#catalogue!.snapshot,
        index: this.#index,
      }),
      answered: () => {},
      failed: (error) => this.#log.warn({ error }, 'names: a socket failed'),
    });
  }

  /** Takes the addresses that were written down. Never fails: what cannot be read follows from the names again. */
  async load(): Promise<void> {
    const { records } = await this.#file.load();
    for (let i = 0; i < records.length; i += LOAD_SLICE) {
      this.#virtual.load(records.slice(i, i + LOAD_SLICE));
      await nextTurn();
    }
  }

  /** The service with what this host gives it. */
  decorate(service: Service): Service {
    const virtual = this.#virtual.of(service.name);
    const resolved = resolvedEndpoints(service, (host) => this.#ownHosts.addresses(host));
    if (virtual.length === 0 && resolved.length === 0) return service;
    return {
      ...service,
      ...(virtual.length === 0 ? {} : { virtual }),
      ...(resolved.length === 0 ? {} : { resolved }),
    };
  }

  /** From now on this catalogue says which services there are. */
  follow(catalogue: Catalogue): void {
    this.#unfollow();
    this.#catalogue = catalogue;
    const { services } = catalogue.snapshot;
    this.#virtual.releaseOthers(services);
    for (const service of services.values()) this.#hosts.set(service);
    for (const service of this.#hosts.services) if (!services.has(service)) this.#hosts.remove(service);
    this.#resolveHosts();
    this.#unfollow = catalogue.listen({ delta: (delta) => this.#changed(delta) });
    this.#write();
    this.#sweep ??= setInterval(() => this.#virtual.sweep(), SWEEP_MS).unref();
  }

  /** What of it may change while the agent runs: times. */
  configure(config: Config): void {
    this.#config = config;
    this.hostNames.configure(config.names);
  }

  /** Answers here as long as no worker does, on the descriptors that they share. */
  standIn(wanted: boolean, listeners: readonly Listener[]): void {
    if (wanted === this.#responder.serving || this.#catalogue === undefined) return;
    if (!wanted) {
      this.#responder.close();
      return;
    }
    this.#responder.serve(
      listeners.flatMap(({ kind, ip, fd }) =>
        kind === 'dns-udp' || kind === 'dns-tcp' ? [{ kind, ip, fd: duplicateDescriptor(fd) }] : [],
      ),
    );
  }

  /**
   * Resolves the host names of this catalogue's services once, within this time, for a program that only looks: nothing
   * is written down, and nothing stays behind.
   */
  async resolveOnce(catalogue: Catalogue, timeoutMs: number): Promise<void> {
    for (const service of catalogue.snapshot.services.values()) this.#hosts.set(service);
    const names = this.#hostsToResolve();
    this.#ownHosts.set(names);
    await this.hostNames.asked(timeoutMs);
    catalogue.decorateAgain(this.#hosts.usersOf(names));
    this.hostNames.stop();
  }

  /** Writes down what is waiting to be written. */
  async stop(): Promise<void> {
    this.#unfollow();
    clearInterval(this.#sweep);
    this.#responder.close();
    this.hostNames.stop();
    await this.#file.flush();
  }

  #changed(delta: SnapshotDelta): void {
    let others = false;
    for (const name of delta.removedServices) {
      this.#virtual.release(name);
      others = this.#hosts.remove(name) || others;
    }
    for (const service of delta.services) others = this.#hosts.set(service) || others;
    if (others) this.#resolveHosts();
  }

  /** Once for all deltas of one turn. */
  #resolveHosts(): void {
    if (this.#hostsStale) return;
    this.#hostsStale = true;
    setImmediate(() => {
      this.#hostsStale = false;
      this.#ownHosts.set(this.#hostsToResolve());
    });
  }

  /** Names of the domain mean services already, and other resolvers must not be asked for them. */
  #hostsToResolve(): ReadonlySet<string> {
    const { domain } = this.#config.names;
    return new Set([...this.#hosts.names].filter((name) => name !== domain && !name.endsWith(`.${domain}`)));
  }

  #write(): void {
    this.#file.changed(() => this.#virtual.records());
  }
}

/** The ranges in which this host gives addresses: none without interception, and none that nobody here could use. */
function rangesOf({ capture, names }: Config): {
  readonly ipv4: AddressRange | undefined;
  readonly ipv6: AddressRange | undefined;
} {
  const none = capture.mode === 'off';
  const ipv6 = capture.ipv6 === 'on' || (capture.ipv6 === 'auto' && hasIpv6());
  return {
    ipv4: none ? undefined : addressRange(names.ipv4),
    ipv6: none || !ipv6 ? undefined : addressRange(names.ipv6),
  };
}
