import { TcpListener } from '../../io/listener.ts';
import { interceptionOf } from '../../io/original-destination.ts';
import type { Poller } from '../../io/poller.ts';
import type { TcpChannel } from '../../io/socket.ts';
import type { ClientAddress, Ip } from '../../model/address.ts';
import { selfTestAddress } from '../../model/self-test.ts';
import type { Connections } from '../../proxy/connections.ts';
import type { Outbound } from '../../proxy/outbound.ts';
import { SelfTestResponder } from '../../proxy/self-test.ts';
import type { WorkerSettings } from '../control/messages.ts';
import type { VitalCounts } from '../guard/vitals.ts';
import { LISTEN_BACKLOG, type Listener } from '../succession/listeners.ts';
import type { WorkerMetrics } from './worker-metrics.ts';

interface IntakeOptions {
  readonly poller: Poller;
  readonly listeners: readonly Listener[];
  readonly connections: Connections;
  readonly outbound: Outbound;
  readonly vitals: VitalCounts;
  readonly metrics: WorkerMetrics;
  settings(): WorkerSettings;
}

/** Takes intercepted connections from the capture listeners, and those to the explicit proxy, within `limits.connections`. */
export class Intake {
  readonly #options: IntakeOptions;
  readonly #open: TcpListener[] = [];
  readonly #selfTest: SelfTestResponder;
  #selfTestAddresses: ReadonlySet<Ip>;

  constructor(options: IntakeOptions) {
    this.#options = options;
    const { deadlines } = options.poller;
    this.#selfTest = new SelfTestResponder((ms, expired) => deadlines.after(ms, expired));
    this.#selfTestAddresses = selfTestAddressesOf(options.settings());
  }

  /** True while it takes connections; never in an agent that intercepts none and is no proxy. */
  get serving(): boolean {
    return this.#open.length > 0;
  }

  configure(settings: WorkerSettings): void {
    this.#selfTestAddresses = selfTestAddressesOf(settings);
  }

  serve(): void {
    const { poller, listeners, settings } = this.#options;
    const { acceptBatch, keepaliveIdle } = settings().config.limits;
    for (const listener of listeners) {
      if (listener.kind !== 'capture' && listener.kind !== 'proxy') continue;
      const isProxy = listener.kind === 'proxy';
      const capture = new TcpListener(poller, listener.fd, {
        acceptBatch,
        keepalive: { idleMs: keepaliveIdle },
        onConnection: (channel) =>
          isProxy ? this.#asked(channel, listener) : this.#captured(channel, listener),
        onRejected: () => this.#rejected(),
      });
      this.#open.push(capture);
    }
  }

  /** Takes what waits in the queues now. */
  takeWaiting(): void {
    for (const capture of this.#open) capture.takeWaiting(LISTEN_BACKLOG);
  }

  close(): void {
    for (const capture of this.#open.splice(0)) capture.close();
  }

  #rejected(): void {
    const { vitals, metrics } = this.#options;
    vitals.taken++;
    vitals.failed++;
    metrics.acceptRejected();
  }

  /** A caller of the explicit proxy. */
  #asked(channel: TcpChannel, listener: Listener): void {
    const { vitals, metrics, connections, outbound, settings } = this.#options;
    vitals.taken++;
    const remote = channel.remoteEndpoint as ClientAddress | undefined;
    const at = channel.localEndpoint;
    if (remote === undefined || at === undefined) channel.reset();
    else if (connections.size < settings().config.limits.connections) {
      outbound.acceptExplicit(channel, remote, at);
    } else {
      metrics.refusedAtLimit();
      vitals.failed++;
      outbound.refuse(channel, remote, listener);
    }
  }

  #captured(channel: TcpChannel, listener: Listener): void {
    const { vitals, metrics, connections, outbound, settings } = this.#options;
    vitals.taken++;
    const remote = channel.remoteEndpoint;
    if (remote === undefined) {
      channel.reset();
      return;
    }
    const interception = interceptionOf(channel, listener.port);
    const destination = interception.kind === 'redirected' ? interception.destination : undefined;
    if (connections.size >= settings().config.limits.connections) {
      metrics.refusedAtLimit();
      vitals.failed++;
      outbound.refuse(channel, remote as ClientAddress, destination ?? listener);
      return;
    }
    if (destination !== undefined && this.#selfTestAddresses.has(destination.ip)) {
      this.#selfTest.accept(channel);
      return;
    }
    outbound.accept(channel, remote as ClientAddress, destination, listener);
  }
}

function selfTestAddressesOf({ config: { names } }: WorkerSettings): ReadonlySet<Ip> {
  return new Set([names.ipv4, names.ipv6].flatMap((network) => selfTestAddress(network) ?? []));
}
