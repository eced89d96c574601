import type { Poller } from '../../io/poller.ts';
import { TcpChannel } from '../../io/socket.ts';
import type { Endpoint, Ip } from '../../model/address.ts';
import { Delivery } from '../../proxy/delivery.ts';
import type { WorkerSettings } from '../control/messages.ts';
import { transparentSocketPath } from '../supervisor/transparent-sockets.ts';
import { TransparentPool } from './transparent-pool.ts';

/** The plain connections that a worker makes: to instances, to original destinations, to zone-agents' targets. */
export class LastLeg {
  readonly delivery: Delivery;
  readonly #poller: Poller;
  readonly #pool: TransparentPool;
  readonly #settings: () => WorkerSettings;

  constructor(poller: Poller, settings: () => WorkerSettings, isOwnAddress: (ip: Ip) => boolean) {
    this.#poller = poller;
    this.#settings = settings;
    this.#pool = new TransparentPool(
      poller,
      transparentSocketPath(settings().config.daemon.runtimeDirectory),
    );
    this.delivery = new Delivery({
      isOwnAddress,
      direct: (endpoint) => this.direct(endpoint),
      directFrom: (localIp, endpoint) => TcpChannel.connect(poller, endpoint, { ...this.#bounds(), localIp }),
      transparent: (source, endpoint) =>
        TcpChannel.connectWith(poller, endpoint, this.#bounds(), (waiter) =>
          this.#pool.obtain(source, waiter),
        ),
    });
  }

  direct(endpoint: Endpoint): TcpChannel {
    return TcpChannel.connect(this.#poller, endpoint, this.#bounds());
  }

  close(): void {
    this.#pool.close();
  }

  #bounds() {
    const { balance, limits } = this.#settings().config;
    return { timeoutMs: balance.connectTimeout, keepalive: { idleMs: limits.keepaliveIdle } };
  }
}
