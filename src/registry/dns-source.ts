import { type Endpoint, endpointKey } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { Protocol, Service, ServiceMode, ServiceName } from '../model/service.ts';
import { serviceDefaults } from './defaults.ts';
import { DnsQuestions, type TargetAddresses } from './dns-questions.ts';
import { instancesOf, type SrvRecord, usedRecords } from './dns-srv.ts';
import { jittered, waited } from './retry-pause.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';

/** Different targets of all services that one look resolves; what is beyond is reported as without address. */
const MAX_TARGETS = 20_000;

/** A service that is looked up. */
export interface DnsService {
  /** A service name, unique in the list. */
  readonly name: string;
  /** Name of the SRV records, such as `_http._tcp.orders.example`. */
  readonly srv: string;
  readonly protocol?: Protocol | undefined;
  readonly mode: ServiceMode;
  /** Zone of its instances; default that of this host. */
  readonly zone?: string | undefined;
}

export interface DnsSourceOptions {
  readonly services: readonly DnsService[];
  /** Name servers; none: those of /etc/resolv.conf. */
  readonly servers: readonly Endpoint[];
  /** Bounds on the time between two looks, milliseconds. */
  readonly minInterval: number;
  readonly maxInterval: number;
  /** Bound on one question, milliseconds. */
  readonly timeout: number;
  readonly context: SourceContext;
}

/**
 * The `dns` registry: instances from SRV records and the addresses of their targets (docs/registries.md). Looked up again
 * as often as the addresses' time to live asks for, within bounds: `node:dns` tells none of SRV records.
 */
export class DnsSource implements Source {
  readonly name: string;
  readonly #options: DnsSourceOptions;
  readonly #state: SourceStateMachine;
  readonly #stopped = new AbortController();
  #listener: SourceListener | undefined;
  #following: Promise<void> | undefined;
  /** Looks in a row in which something could not be asked. */
  #failures = 0;

  constructor(options: DnsSourceOptions) {
    this.#options = options;
    this.name = `dns:${options.servers.length === 0 ? 'system' : options.servers.map(endpointKey).join(',')}`;
    this.#state = new SourceStateMachine(this.name, options.context.log);
  }

  get status(): SourceStatus {
    return this.#state.status;
  }

  start(listener: SourceListener): void {
    this.#listener = listener;
    this.#state.listen(listener);
    this.#following = this.#follow();
  }

  async stop(): Promise<void> {
    this.#listener = undefined;
    this.#state.listen(undefined);
    this.#stopped.abort();
    await this.#following;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped;
    const { minInterval, maxInterval } = this.#options;
    while (!signal.aborted) {
      let pause = minInterval * 2 ** Math.min(this.#failures, 16);
      try {
        pause = (await this.#look(signal)) ?? pause;
      } catch (error) {
        if (signal.aborted) return;
        this.#failures++;
        this.#state.unreachable(reasonOf(error));
      }
      const within = Math.min(maxInterval, Math.max(minInterval, pause));
      await waited(jittered(within), signal);
    }
  }

  /** One look at everything; the shortest time to live of the addresses, milliseconds. */
  async #look(signal: AbortSignal): Promise<number | undefined> {
    const { services, servers, timeout } = this.#options;
    const questions = new DnsQuestions(servers, timeout);
    const cancel = () => questions.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      const names = new Set(services.map((service) => service.srv));
      const records = await questions.each(names, (name) => questions.srv(name));
      if (signal.aborted) return undefined;
      const problems = new Map<string, string[]>();
      const used = new Map<string, readonly SrvRecord[] | MeshError>();
      const targets = new Set<string>();
      for (const [name, answer] of records) {
        const own: string[] = [];
        problems.set(name, own);
        const kept = answer instanceof MeshError ? answer : usedRecords(answer, own);
        used.set(name, kept);
        if (kept instanceof MeshError) continue;
        for (const { name: target } of kept) if (targets.size < MAX_TARGETS) targets.add(target);
      }
      const addresses = await questions.each(targets, (name) => questions.addresses(name));
      if (signal.aborted) return undefined;
      this.#tell(records, used, addresses, problems);
      const ttls = Array.from(addresses.values(), (answer) =>
        answer instanceof MeshError ? undefined : answer.ttl,
      ).filter((ttl) => ttl !== undefined);
      return ttls.length === 0 ? undefined : Math.min(...ttls) * 1000;
    } finally {
      signal.removeEventListener('abort', cancel);
      questions.cancel();
    }
  }

  /** What answered is believed; a service of which a part could not be asked stays as it is known. */
  #tell(
    records: ReadonlyMap<string, readonly SrvRecord[] | MeshError>,
    used: ReadonlyMap<string, readonly SrvRecord[] | MeshError>,
    answers: ReadonlyMap<string, TargetAddresses | MeshError>,
    problems: ReadonlyMap<string, string[]>,
  ): void {
    const present: Service[] = [];
    const removedServices: ServiceName[] = [];
    const told: string[] = [];
    let failure: MeshError | undefined;
    for (const service of this.#options.services) {
      const serviceName = service.name as ServiceName;
      const kept = used.get(service.srv)!;
      const failed = kept instanceof MeshError ? kept : failureOf(kept, answers);
      if (kept instanceof MeshError || failed !== undefined) {
        failure ??= failed;
        continue;
      }
      const asked = records.get(service.srv) as readonly SrvRecord[];
      if (asked.every((record) => record.name === '' || record.name === '.')) {
        removedServices.push(serviceName);
        continue;
      }
      const own = [...problems.get(service.srv)!];
      const addresses = new Map<string, readonly string[]>();
      for (const { name } of kept) {
        const answer = answers.get(name);
        if (answer !== undefined && !(answer instanceof MeshError)) addresses.set(name, answer.addresses);
      }
      const { context } = this.#options;
      present.push({
        name: serviceName,
        ...serviceDefaults,
        mode: service.mode,
        ...(service.protocol === undefined ? {} : { protocol: service.protocol }),
        balance: context.balance,
        hosts: [],
        addresses: [],
        instances: instancesOf(kept, addresses, service.zone ?? context.zone, own),
      });
      for (const text of own) told.push(`service ${service.name}: ${text}`);
    }
    if (failure === undefined) {
      this.#failures = 0;
      this.#listener?.update({ kind: 'full', services: present, nodes: [], complete: true });
      this.#state.confirmed(told);
      return;
    }
    if (present.length > 0 || removedServices.length > 0) {
      const nothing = { nodes: [], removedNodes: [] };
      this.#listener?.update({ kind: 'change', services: present, removedServices, ...nothing });
    }
    throw failure;
  }
}

function failureOf(
  records: readonly SrvRecord[],
  answers: ReadonlyMap<string, TargetAddresses | MeshError>,
): MeshError | undefined {
  for (const { name } of records) {
    const answer = answers.get(name);
    if (answer instanceof MeshError) return answer;
  }
  return undefined;
}
