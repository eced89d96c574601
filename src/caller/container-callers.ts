import { setTimeout as pause } from 'node:timers/promises';
import type { Endpoint, Ip } from '../model/address.ts';
import type { CgroupWalks } from './cgroup-walks.ts';
import { type Claim, type ContainerClaims, containerClaims, stillClaimed } from './container-addresses.ts';
import { type Identity, type Naming, Namings, unknownIdentity } from './identity.ts';

/** Engines give an address again at once: what was known of it is asked for again after this. */
const FRESH_MS = 1_000;
/** What was read may be true no more: another process may have joined a namespace. Read again while somebody asks. */
const STALE_MS = 10_000;
/** After all processes were looked at, nobody looks for nine times as long as it took, but not longer than this. */
const PAUSE_FACTOR = 9;
const MOST_PAUSE_MS = 500;
/** Addresses of which something is known; one more, and all are asked for anew. */
const MOST_KNOWN = 4_096;

interface Known {
  readonly identity: Identity;
  readonly checkedAt: number;
}

/** Callers behind a bridge: their sockets are in network namespaces of their own, only their addresses are seen. */
export class ContainerCallers {
  readonly #walks: CgroupWalks;
  readonly #namings: Namings<Ip>;
  readonly #known = new Map<Ip, Known>();
  readonly #read: typeof containerClaims;
  #claims: ContainerClaims = new Map();
  #readAt = performance.now();
  #stale = false;
  #reading = false;
  /** When the newest walk began that was not taken yet. */
  #walkedAt: number | undefined;
  #notBefore = 0;
  #closed = false;

  constructor(walks: CgroupWalks, timeoutMs: () => number, read = containerClaims) {
    this.#walks = walks;
    this.#namings = new Namings(timeoutMs);
    this.#read = read;
  }

  find({ ip }: Endpoint): Identity | Naming {
    const known = this.#known.get(ip);
    if (known !== undefined && performance.now() - known.checkedAt < FRESH_MS) return known.identity;
    const sought = this.#namings.get(ip);
    if (sought !== undefined) return sought;
    const naming = this.#namings.begin(ip, unknownIdentity, ip);
    if (naming === undefined) return unknownIdentity;
    void this.#confirm(ip);
    return naming;
  }

  /** Takes what the last walk saw, which began at this time. One after the other, however many walks there are. */
  async walked(beganAt: number): Promise<void> {
    this.#walkedAt = Math.max(this.#walkedAt ?? beganAt, beganAt);
    if (this.#reading) return;
    this.#reading = true;
    while (this.#walkedAt !== undefined && !this.#closed && this.#isWanted()) {
      await pause(Math.max(0, this.#notBefore - performance.now()), undefined, { ref: false });
      const walkedAt = this.#walkedAt;
      this.#walkedAt = undefined;
      await this.#take(walkedAt);
    }
    this.#walkedAt = undefined;
    this.#reading = false;
  }

  close(): void {
    this.#closed = true;
    this.#namings.close();
  }

  #isWanted(): boolean {
    return this.#stale || this.#namings.entries().length > 0;
  }

  async #take(walkedAt: number): Promise<void> {
    const began = performance.now();
    this.#claims = await this.#read(this.#walks.tree.containers);
    this.#readAt = performance.now();
    this.#stale = false;
    this.#notBefore = this.#readAt + Math.min(MOST_PAUSE_MS, PAUSE_FACTOR * (this.#readAt - began));
    for (const [ip, since] of this.#namings.entries()) {
      const claim = this.#claims.get(ip);
      if (claim === undefined && since >= walkedAt) this.#walks.want();
      else this.#know(ip, claim);
    }
  }

  /** What was read earlier counts as long as the container is there: also when it was read for another address. */
  async #confirm(ip: Ip): Promise<void> {
    const claim = this.#claims.get(ip);
    if (claim !== undefined && performance.now() - this.#readAt > STALE_MS && !this.#stale) {
      this.#stale = true;
      this.#walks.want();
    }
    if (claim !== undefined && claim !== 'shared' && (await stillClaimed(claim))) this.#know(ip, claim);
    else this.#walks.want();
  }

  #know(ip: Ip, claim: Claim | 'shared' | undefined): void {
    const identity = claim === undefined || claim === 'shared' ? unknownIdentity : claim.identity;
    if (this.#known.size >= MOST_KNOWN) this.#known.clear();
    this.#known.set(ip, { identity, checkedAt: performance.now() });
    this.#namings.settle(ip, identity);
  }
}
