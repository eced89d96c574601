import { SockDiag } from '../io/netlink-sock-diag.ts';
import { Passwd } from '../io/passwd.ts';
import type { Endpoint } from '../model/address.ts';
import { CgroupWalks } from './cgroup-walks.ts';
import { ContainerCallers } from './container-callers.ts';
import type { Identity, Naming } from './identity.ts';
import { LocalCallers } from './local-callers.ts';
import type { SourcePorts } from './source-ports.ts';
import { Users } from './users.ts';

/**
 * Says which program is behind an intercepted connection. What the kernel tells is there at once; the name of a
 * control group or container that is seen for the first time is looked for meanwhile, for `timeoutMs` at most.
 */
export class CallerIdentifier {
  readonly #sockets: SockDiag;
  readonly #users: Users;
  readonly #walks: CgroupWalks;
  readonly #local: LocalCallers;
  readonly #containers: ContainerCallers;

  /** Throws a MeshError where the kernel cannot be asked. */
  constructor(sources: SourcePorts, timeoutMs: () => number) {
    this.#sockets = new SockDiag();
    this.#users = new Users(new Passwd(), () => this.#local.forget());
    this.#walks = new CgroupWalks((beganAt) => {
      this.#local.walked(beganAt);
      void this.#containers.walked(beganAt);
    });
    this.#local = new LocalCallers(this.#sockets, this.#users, this.#walks, sources, timeoutMs);
    this.#containers = new ContainerCallers(this.#walks, timeoutMs);
    this.#walks.want();
    void this.#users.look();
  }

  /**
   * A caller on this host: its socket is connected from `client` to `destination`, the original one. `listener`: where
   * the connection was redirected to.
   */
  local(client: Endpoint, destination: Endpoint, listener: Endpoint): Identity | Naming {
    return this.#local.find(client, destination, listener);
  }

  /** A caller behind a bridge of this host. */
  bridged(client: Endpoint): Identity | Naming {
    return this.#containers.find(client);
  }

  /** Gives up what is being looked for. */
  close(): void {
    this.#walks.close();
    this.#local.close();
    this.#containers.close();
    this.#sockets.close();
  }
}
