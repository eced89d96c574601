import { promises as dns, type RecordWithTtl } from 'node:dns';
import { type Endpoint, endpointKey } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { SrvRecord } from './dns-srv.ts';

/** Times that one server is asked. */
const TRIES = 2;
/** Questions that are open at once. */
const MAX_OPEN = 32;
/** The server has answered, and there is no such name or no such record. */
const ABSENT: readonly unknown[] = ['ENOTFOUND', 'ENODATA'];

/** Addresses of a name, and how long they may be kept (seconds); undefined when the answer does not say. */
export interface TargetAddresses {
  readonly addresses: readonly string[];
  readonly ttl: number | undefined;
}

/**
 * The questions of one look at the name servers. Each is bounded in time, and their number at once as well. What is not
 * there is an empty answer; a server that cannot be asked, or that refuses or fails, is an error of code `registry`.
 * A look has a resolver (c-ares) of its own: its ports are new ones, and /etc/resolv.conf is read anew.
 */
export class DnsQuestions {
  readonly #resolver: dns.Resolver;
  readonly #timeout: number;
  #cancelled = false;

  constructor(servers: readonly Endpoint[], timeout: number) {
    this.#timeout = timeout;
    this.#resolver = new dns.Resolver({ timeout: Math.max(1, Math.floor(timeout / TRIES)), tries: TRIES });
    if (servers.length > 0) this.#resolver.setServers(servers.map(endpointKey));
  }

  /** Ends every open question with an error, and asks no further one. */
  cancel(): void {
    this.#cancelled = true;
    this.#resolver.cancel();
  }

  /** Answers for all `names`, at most {@link MAX_OPEN} at once; never rejects. */
  async each<T>(
    names: Iterable<string>,
    ask: (name: string) => Promise<T>,
  ): Promise<Map<string, T | MeshError>> {
    const answers = new Map<string, T | MeshError>();
    const waiting = names[Symbol.iterator]();
    const one = async () => {
      for (let next = waiting.next(); next.done !== true && !this.#cancelled; next = waiting.next()) {
        const name = next.value;
        const failed = (error: unknown) => new MeshError('registry', 'registry', reasonOf(error));
        answers.set(name, await ask(name).catch(failed));
      }
    };
    await Promise.all(Array.from({ length: MAX_OPEN }, one));
    return answers;
  }

  async srv(name: string): Promise<readonly SrvRecord[]> {
    return this.#ask(`SRV ${name}`, this.#resolver.resolveSrv(name));
  }

  /** Both families; when one of them cannot be asked, neither is known. */
  async addresses(name: string): Promise<TargetAddresses> {
    const [v4, v6] = await Promise.all([
      this.#ask<RecordWithTtl>(`A ${name}`, this.#resolver.resolve4(name, { ttl: true })),
      this.#ask<RecordWithTtl>(`AAAA ${name}`, this.#resolver.resolve6(name, { ttl: true })),
    ]);
    const records = [...v4, ...v6];
    const ttl = records.length === 0 ? undefined : Math.min(...records.map((record) => record.ttl));
    return { addresses: records.map((record) => record.address), ttl };
  }

  async #ask<T>(what: string, answer: Promise<readonly T[]>): Promise<readonly T[]> {
    let timer: NodeJS.Timeout | undefined;
    // The bound of the resolver is one of each try, and grows with them.
    const late = new Promise<never>((_, reject) => {
      const text = `${what}: no answer within ${this.#timeout} ms`;
      timer = setTimeout(() => reject(new MeshError('registry', 'registry', text)), this.#timeout);
    });
    try {
      return await Promise.race([answer, late]);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (ABSENT.includes(code)) return [];
      if (error instanceof MeshError) throw error;
      throw new MeshError('registry', 'registry', `${what}: ${code ?? reasonOf(error)}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}
