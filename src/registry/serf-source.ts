import { type Endpoint, endpointKey } from '../model/address.ts';
import { MeshError, reasonOf } from '../model/errors.ts';
import type { MsgValue } from './msgpack.ts';
import { jittered, pausedWhileOpen, retryPause, waited } from './retry-pause.ts';
import { readSecret } from './secret-file.ts';
import { SerfConnection } from './serf-connection.ts';
import { SerfMembers } from './serf-members.ts';
import { readMembers, textField } from './serf-rpc.ts';
import type { Source, SourceContext, SourceListener, SourceStatus } from './source.ts';
import { SourceStateMachine } from './source-state.ts';

/** User events and queries of other programs are not asked for. */
const EVENTS = 'member-join,member-leave,member-failed,member-update,member-reap';

export interface SerfSourceOptions {
  /** RPC address of the local agent. */
  readonly address: Endpoint;
  readonly authKeyFile: string | undefined;
  /** Milliseconds between comparisons of the full list: streams stall silently, and drop events when they are slow. */
  readonly resyncInterval: number;
  /** Bound on connecting and on one answer, milliseconds. */
  readonly timeout: number;
  readonly context: SourceContext;
}

/** The `serf` registry: services, zones and nodes from the tags of a gossip cluster (docs/registries.md). */
export class SerfSource implements Source {
  readonly name: string;
  readonly #options: SerfSourceOptions;
  readonly #members: SerfMembers;
  readonly #state: SourceStateMachine;
  readonly #stopped = new AbortController();
  #listener: SourceListener | undefined;
  #following: Promise<void> | undefined;
  /** Failed attempts in a row. */
  #failures = 0;
  /** The full list of this connection was taken: events are changes of it. */
  #listed = false;
  #unreadable = 0;

  constructor(options: SerfSourceOptions) {
    this.#options = options;
    this.#members = new SerfMembers(options.context);
    this.name = `serf:${endpointKey(options.address)}`;
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
    while (!signal.aborted) {
      try {
        await this.#session(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#state.unreachable(reasonOf(error));
      }
      this.#listed = false;
      await waited(retryPause(this.#failures++), signal);
    }
  }

  /** One connection, from its opening to its end, which is always an error. */
  async #session(signal: AbortSignal): Promise<void> {
    const { address, authKeyFile, timeout, resyncInterval } = this.#options;
    const authKey = authKeyFile === undefined ? undefined : await readSecret(authKeyFile);
    const onEvents = (events: readonly ReadonlyMap<string, MsgValue>[]) => this.#events(events);
    const connection = await SerfConnection.open({ address, authKey, timeout, onEvents }, signal);
    const abort = () => connection.close(new MeshError('registry', 'agent', 'stopped'));
    signal.addEventListener('abort', abort, { once: true });
    try {
      if (signal.aborted) return;
      // The stream first and the list after it: what happens in between is then in one of the two.
      await connection.stream(EVENTS);
      for (;;) {
        await this.#list(connection);
        await pausedWhileOpen(jittered(resyncInterval), connection.closed);
      }
    } finally {
      signal.removeEventListener('abort', abort);
      connection.close(new MeshError('registry', 'agent', 'closed'));
    }
  }

  async #list(connection: SerfConnection): Promise<void> {
    const body = await connection.request('members', undefined, 'body');
    if (this.#listener === undefined) return;
    const { members, unreadable } = readMembers(body ?? new Map());
    this.#unreadable = unreadable;
    // An agent that was just started knows only itself until it has joined. Members that leave, fail or are reaped
    // are announced, so others that are suddenly missing from the list were forgotten by it and are not gone.
    const alone = members.filter((member) => member.status === 'alive').length <= 1;
    if (alone && this.#members.knowsOthersThan(members)) {
      throw new MeshError('registry', 'registry', 'the Serf agent knows only itself; was it restarted?');
    }
    const update = this.#members.replace(members, !alone);
    this.#listed = true;
    this.#failures = 0;
    this.#listener.update(update);
    this.#confirm();
  }

  #events(events: readonly ReadonlyMap<string, MsgValue>[]): void {
    for (const event of events) {
      const kind = textField(event, 'Event') ?? '';
      const here = kind === 'member-join' || kind === 'member-update';
      for (const member of readMembers(event).members) {
        // A member that failed is out at once, as one that left: its tags stay in the gossip, its host does not answer.
        if (here) this.#members.put(member);
        else this.#members.remove(member.name);
      }
    }
    if (!this.#listed || this.#listener === undefined) return;
    const update = this.#members.changes();
    if (update !== undefined) this.#listener.update(update);
    this.#confirm();
  }

  #confirm(): void {
    const { problems } = this.#members;
    if (this.#unreadable > 0) problems.push(`${this.#unreadable} members cannot be read`);
    this.#state.confirmed(problems);
  }
}
