import { CallerIdentifier } from '../../caller/caller-identifier.ts';
import { SourcePorts } from '../../caller/source-ports.ts';
import type { Config } from '../../config/schema.ts';
import type { Log } from '../../telemetry/log.ts';

/** The identifier of a worker: made when it is first wanted, once, and never where the kernel cannot be asked. */
export class CallerSource {
  readonly sourcePorts = new SourcePorts();
  readonly #log: Log;
  #identifier: CallerIdentifier | undefined;
  #timeoutMs = 0;
  #refused = false;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Undefined when callers are not to be identified, or cannot be. */
  current({ identify, timeout }: Config['caller']): CallerIdentifier | undefined {
    this.#timeoutMs = timeout;
    if (!identify || this.#refused) return undefined;
    return this.#identifier ?? this.#make();
  }

  close(): void {
    this.#refused = true;
    this.#identifier?.close();
    this.#identifier = undefined;
  }

  #make(): CallerIdentifier | undefined {
    try {
      this.#identifier = new CallerIdentifier(this.sourcePorts, () => this.#timeoutMs);
    } catch (error) {
      this.#refused = true;
      this.#log.warn({ error }, 'callers: the kernel cannot be asked; nobody is identified');
    }
    return this.#identifier;
  }
}

/** Connections that one caller may have on a worker; at least one. */
export function callerLimit({ connections, callerPercent }: Config['limits']): number {
  return Math.max(1, Math.floor((connections * callerPercent) / 100));
}
