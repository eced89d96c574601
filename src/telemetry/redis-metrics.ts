import type { CounterHandle, Counters, HistogramHandle } from './counters.ts';
import { metrics } from './definitions.ts';

/** Services whose handles are kept; beyond them they are resolved each time, which costs microseconds and no memory. */
const MOST_SERVICES = 1000;

/** Counts what is said to services that speak RESP. Commands and errors are of closed sets. */
export class RedisMetrics {
  readonly #counters: Counters;
  readonly #services = new Map<string, ServiceCommands>();

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  of(service: string): ServiceCommands {
    let commands = this.#services.get(service);
    if (commands === undefined) {
      commands = new ServiceCommands(this.#counters, service);
      if (this.#services.size < MOST_SERVICES) this.#services.set(service, commands);
    }
    return commands;
  }
}

/** The handles of one service, resolved when they are needed first. */
class ServiceCommands {
  readonly #counters: Counters;
  readonly #service: string;
  readonly #ok = new Map<string, CounterHandle>();
  #duration: HistogramHandle | undefined;

  constructor(counters: Counters, service: string) {
    this.#counters = counters;
    this.#service = service;
  }

  answered(command: string, failed: boolean): void {
    if (failed) {
      this.#counters.counter(metrics.redisCommands, this.#service, command, 'error').add();
      return;
    }
    let handle = this.#ok.get(command);
    if (handle === undefined) {
      handle = this.#counters.counter(metrics.redisCommands, this.#service, command, 'ok');
      this.#ok.set(command, handle);
    }
    handle.add();
  }

  unanswered(command: string, count: number): void {
    this.#counters.counter(metrics.redisCommands, this.#service, command, 'none').add(count);
  }

  took(milliseconds: number): void {
    this.#duration ??= this.#counters.histogram(metrics.redisCommandDuration, this.#service);
    this.#duration.observe(milliseconds / 1000);
  }

  slow(command: string): void {
    this.#counters.counter(metrics.redisSlow, this.#service, command).add();
  }

  error(word: string): void {
    this.#counters.counter(metrics.redisErrors, this.#service, word).add();
  }

  lost(reason: string): void {
    this.#counters.counter(metrics.redisLost, this.#service, reason).add();
  }
}
