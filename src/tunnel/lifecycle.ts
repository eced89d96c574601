import type { NodeName } from '../model/service.ts';
import type { TunnelContext } from './context.ts';

export type SessionState = 'connecting' | 'open' | 'draining' | 'closed';
/** Which states may precede each. */
const predecessors: Readonly<Record<SessionState, readonly SessionState[]>> = {
  connecting: [],
  open: ['connecting'],
  draining: ['open'],
  closed: ['connecting', 'open', 'draining'],
};

/** Whose life it is, and what it does with its time. */
interface Subject {
  readonly peer: { readonly node: NodeName };
  readonly role: string;
  /** It did not open in time. */
  expired(): void;
  /** Once in each keepalive interval, while open or draining. */
  tick(now: number): void;
}

/** The state of a session, and the one timer that belongs to it. */
export class Lifecycle {
  readonly #context: TunnelContext;
  readonly #subject: Subject;
  #state: SessionState = 'connecting';
  #timer: NodeJS.Timeout;

  constructor(context: TunnelContext, subject: Subject) {
    this.#context = context;
    this.#subject = subject;
    this.#timer = setTimeout(() => subject.expired(), context.settings.handshakeTimeout);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Goes on to another state; one that may not follow is a mistake of ours, and thrown. */
  enter(to: SessionState, detail = ''): void {
    const from = this.#state;
    if (!predecessors[to].includes(from)) throw new Error(`tunnel session: ${from} → ${to}`);
    this.#state = to;
    const { peer, role } = this.#subject;
    const fields = { peer: peer.node, role, ...(detail === '' ? {} : { detail }) };
    this.#context.log.debug(fields, `tunnel ${from} → ${to}`);
    if (to === 'draining') return;
    clearTimeout(this.#timer);
    if (to !== 'open') return;
    const { keepaliveInterval } = this.#context.settings;
    this.#timer = setInterval(() => this.#subject.tick(performance.now()), keepaliveInterval);
  }
}
