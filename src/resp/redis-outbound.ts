import type { Channel } from '../io/channel.ts';
import type { ServiceName } from '../model/service.ts';
import { Carriage } from '../proxy/carriage.ts';
import type { ConnectionEntry } from '../proxy/connections.ts';
import type { Origin } from '../proxy/origin.ts';
import type { SearchDependencies } from '../proxy/outbound-dependencies.ts';
import type { Begun } from '../proxy/protocols.ts';
import type { SearchTarget } from '../proxy/seeker.ts';
import { mayWait } from './commands.ts';
import { Conversation } from './conversation.ts';
import { TappedChannel } from './tapped-channel.ts';

/** Slow commands of one worker that are logged at once; after that one each second. */
const SLOW_BURST = 10;
const SLOW_EACH_MS = 1000;

/** What is counted of the commands to one service. */
export interface CommandCounts {
  answered(command: string, failed: boolean): void;
  unanswered(command: string, count: number): void;
  /** Time of a command that does not wait on purpose, in ms. */
  took(milliseconds: number): void;
  slow(command: string): void;
  error(word: string): void;
  lost(reason: string): void;
}

/** A command that took long. Never its arguments. */
export interface SlowCommand {
  readonly service: ServiceName;
  readonly command: string;
  readonly durationMs: number;
  /** As the access log has it. */
  readonly connection: string;
  /** Slow commands since the last one that was told. */
  readonly untold: number;
}

export interface RedisDependencies extends SearchDependencies {
  counts(service: ServiceName): CommandCounts;
  /** What takes longer, in ms, is slow. */
  slow(): number;
  onSlow(command: SlowCommand): void;
}

/** Carries connections to services that speak RESP: unchanged, with somebody who counts what is said. */
export class RedisOutbound {
  readonly #deps: RedisDependencies;
  readonly #now: () => number;
  #tokens = SLOW_BURST;
  #filledAt: number;
  #untold = 0;

  /** `now`: milliseconds of a clock that never steps. */
  constructor(dependencies: RedisDependencies, now: () => number = () => performance.now()) {
    this.#deps = dependencies;
    this.#now = now;
    this.#filledAt = now();
  }

  accept(client: Channel, entry: ConnectionEntry, origin: Origin, target: SearchTarget, begun?: Begun): void {
    const conversation = this.#conversation(entry, target.service.name);
    for (const bytes of begun?.bytes ?? []) conversation.fromCaller(bytes);
    const carriage = new Carriage(new TappedChannel(client, conversation), entry, this.#deps, begun);
    if (begun?.opened === undefined) carriage.toward(target, origin);
    else carriage.along(begun.opened);
  }

  #conversation(entry: ConnectionEntry, service: ServiceName): Conversation {
    const counts = this.#deps.counts(service);
    return new Conversation(
      {
        answered: (command, failed, durationMs) => {
          counts.answered(command, failed);
          if (mayWait(command)) return;
          counts.took(durationMs);
          if (durationMs <= this.#deps.slow()) return;
          counts.slow(command);
          this.#tell(service, command, durationMs, entry.id);
        },
        unanswered: (command, count) => counts.unanswered(command, count),
        error: (word) => counts.error(word),
        lost: (why) => counts.lost(why),
      },
      this.#now,
    );
  }

  /** A server that hangs makes every command slow: each is counted, few are logged. */
  #tell(service: ServiceName, command: string, durationMs: number, connection: string): void {
    const now = this.#now();
    this.#tokens = Math.min(SLOW_BURST, this.#tokens + (now - this.#filledAt) / SLOW_EACH_MS);
    this.#filledAt = now;
    if (this.#tokens < 1) {
      this.#untold++;
      return;
    }
    this.#tokens--;
    this.#deps.onSlow({
      service,
      command,
      durationMs: Math.round(durationMs),
      connection,
      untold: this.#untold,
    });
    this.#untold = 0;
  }
}
