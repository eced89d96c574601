import { FileTier } from '../../cache/file-tier.ts';
import { CallerIdentifier } from '../../caller/caller-identifier.ts';
import { SourcePorts } from '../../caller/source-ports.ts';
import { type Observation, Observations, parseObservation } from '../../capture/observations.ts';
import type { Config } from '../../config/schema.ts';
import type { BegunConnection } from '../../io/nflog.ts';
import { NflogSocket } from '../../io/nflog-socket.ts';
import { Passwd } from '../../io/passwd.ts';
import { INTEREST_ACCEPT, type Poller } from '../../io/poller.ts';
import { endpointKey } from '../../model/address.ts';
import { reasonOf } from '../../model/errors.ts';
import type { Log } from '../../telemetry/log.ts';

/** Name of the file in the state directory. */
const FILE = 'observations';
/** What was seen within this time is written together; a crash costs no more. */
const WRITE_DELAY_MS = 2000;
/** A group that could not be taken is tried again. */
const RETRY_MS = 10_000;
/**
 * Connections that are taken within one window. Each costs some 30 µs, so observing never takes more than a tenth of a
 * core; what is beyond waits in the socket's buffer, and is lost and counted when that is full.
 */
const WINDOW_MS = 100;
const WINDOW_CONNECTIONS = 300;
/** How long a name of a unit or container may take: nobody waits for it here, and it should not be missed. */
const NAMING_MS = 3000;
/** Of these at most so many in one turn of the event loop. */
const TURN_CONNECTIONS = 32;

/** What `mesh-node observe` and the metrics show of it. */
export interface ObserverStatus {
  readonly recording: boolean;
  /** Why nothing can be seen although it should be. */
  readonly problem: string | undefined;
  /** Connections seen since the daemon started, and those that were not because there were too many. */
  readonly seen: number;
  readonly lost: number;
  /** Pairs of caller and destination that are remembered, and those that had to go. */
  readonly pairs: number;
  readonly forgotten: number;
}

/** In mode `observe`: who calls whom on this host, from what the kernel shows of connections that begin. */
export class Observer {
  readonly observations = new Observations();
  readonly #log: Log;
  readonly #poller: Poller;
  readonly #file: FileTier<Observation>;
  readonly #passwd = new Passwd();
  #recording: Recording | undefined;
  #wanted: { readonly group: number; readonly identify: boolean } | undefined;
  #retry: NodeJS.Timeout | undefined;
  #problem: string | undefined;
  #seen = 0;
  #lost = 0;

  constructor(config: Config, poller: Poller, log: Log) {
    this.#poller = poller;
    this.#log = log.child({ component: 'observer' });
    this.#file = new FileTier({
      path: `${config.daemon.stateDirectory}/${FILE}`,
      writeDelay: WRITE_DELAY_MS,
      check: parseObservation,
      log: this.#log,
    });
  }

  /** Takes what was written down before. Never fails. */
  async load(): Promise<void> {
    this.observations.restore((await this.#file.load()).records);
  }

  /** Observes in mode `observe`, and does not otherwise. */
  configure({ capture, caller }: Config): void {
    this.#stopRecording();
    this.#wanted =
      capture.mode === 'observe' ? { group: capture.observeGroup, identify: caller.identify } : undefined;
    this.#record();
  }

  get status(): ObserverStatus {
    return {
      recording: this.#recording !== undefined,
      problem: this.#problem,
      seen: this.#seen,
      lost: this.#lost + (this.#recording?.lost ?? 0),
      pairs: this.observations.size,
      forgotten: this.observations.forgotten,
    };
  }

  /** Observes no more, and writes down what is waiting to be written. */
  async stop(): Promise<void> {
    this.#wanted = undefined;
    this.#stopRecording();
    await this.#file.flush();
  }

  #record(): void {
    if (this.#wanted === undefined) return;
    const { group, identify } = this.#wanted;
    try {
      const identifier = identify ? new CallerIdentifier(new SourcePorts(), () => NAMING_MS) : undefined;
      this.#passwd.refresh();
      this.#recording = new Recording(this.#poller, group, identifier, (begun) =>
        this.#take(begun, identifier),
      );
      this.#problem = undefined;
      this.#log.info({ group }, 'observer: connections are written down');
    } catch (error) {
      const reason = reasonOf(error);
      this.#problem = `${reason} (${group}: taken by another program? CAP_NET_ADMIN missing?)`;
      this.#log.error({ problem: this.#problem }, 'observer: nothing can be seen; trying again');
      this.#retry = setTimeout(() => this.#record(), RETRY_MS);
      this.#retry.unref();
    }
  }

  #stopRecording(): void {
    clearTimeout(this.#retry);
    this.#problem = undefined;
    if (this.#recording === undefined) return;
    this.#lost += this.#recording.lost;
    this.#recording.close();
    this.#recording = undefined;
  }

  #take(begun: BegunConnection, identifier: CallerIdentifier | undefined): void {
    const { source, destination, sequence, uid, forwarded } = begun;
    const key = endpointKey(destination);
    if (!this.observations.isNew(`${endpointKey(source)} ${key} ${sequence}`)) return;
    this.#seen++;
    const note = (text: string): void => {
      // The packet itself names the user, also when the socket is gone already.
      const caller =
        text === 'unknown' && uid !== undefined ? `user:${this.#passwd.nameOf(uid) ?? uid}` : text;
      this.observations.note(caller, key, Date.now());
      this.#file.changed(() => this.observations);
    };
    // Nothing is redirected: ports are those of the callers.
    const found = forwarded
      ? identifier?.bridged(source)
      : identifier?.local(source, destination, destination);
    if (found === undefined) note('unknown');
    else if ('text' in found) note(found.text);
    else if (!found.wait((identity) => note(identity.text))) note(found.meanwhile.text);
  }
}

/** One NFLOG group, read as it fills, within a budget. */
class Recording {
  readonly #socket: NflogSocket;
  readonly #poller: Poller;
  readonly #identifier: CallerIdentifier | undefined;
  readonly #take: (begun: BegunConnection) => void;
  #left = WINDOW_CONNECTIONS;
  #windowEnds = 0;
  #pause: NodeJS.Timeout | undefined;

  constructor(
    poller: Poller,
    group: number,
    identifier: CallerIdentifier | undefined,
    take: (begun: BegunConnection) => void,
  ) {
    this.#poller = poller;
    this.#identifier = identifier;
    this.#take = take;
    try {
      this.#socket = new NflogSocket(group);
    } catch (error) {
      identifier?.close();
      throw error;
    }
    this.#watch();
  }

  get lost(): number {
    return this.#socket.lost;
  }

  close(): void {
    clearTimeout(this.#pause);
    this.#poller.forget(this.#socket.fd);
    this.#socket.close();
    this.#identifier?.close();
  }

  #watch(): void {
    this.#poller.register(this.#socket.fd, INTEREST_ACCEPT, {
      ready: () => this.#read(),
      failed: () => undefined, // it was reported, and the next packet is read all the same
    });
  }

  #read(): void {
    const now = performance.now();
    if (now >= this.#windowEnds) {
      this.#windowEnds = now + WINDOW_MS;
      this.#left = WINDOW_CONNECTIONS;
    }
    this.#left -= this.#socket.read(Math.min(TURN_CONNECTIONS, this.#left), this.#take);
    if (this.#left > 0) return;
    this.#poller.unregister(this.#socket.fd);
    this.#pause = setTimeout(() => this.#watch(), this.#windowEnds - now);
  }
}
