import { meansUnreached, type ProbeOutcome } from '../balance/outages.ts';
import { type Channel, type ChannelClose, noHandler } from '../io/channel.ts';
import type { Instance, Service } from '../model/service.ts';
import type { Origin } from './origin.ts';
import { AGENT_CONNECTS, type OpenedPath, type PickToken } from './outbound-dependencies.ts';

/** How long a probed service may take to answer the end of the connection before it is reset. */
const LINGER_MS = 1_000;
/** What a probed service may say in that time. */
const LINGER_BYTES = 64 * 1024;

/** Nobody called: the agent asks by itself. */
const AGENT: Origin = { address: undefined, program: undefined };

export interface ProberDependencies {
  open(service: Service, instance: Instance, origin: Origin): OpenedPath;
  past(service: Service, instance: Instance, origin: Origin): Channel;
  started(service: Service, instance: Instance): PickToken;
  after(milliseconds: number, expired: () => void): () => void;
  settings(): { readonly agentPatience: number; readonly connectTimeout: number };
  /** Milliseconds, never going back. */
  readonly now?: () => number;
}

/**
 * What is said on a channel that has opened. It sets the channel's handler and tells once: whether the answer was good, and
 * then the channel is the prober's again; or that it was lost.
 */
export type Question = (
  channel: Channel,
  told: (good: boolean) => void,
  lost: (why: ChannelClose) => void,
) => void;

/** How an instance is asked, where a connection is not all that is wanted. */
export interface Asking {
  /** Bound on everything, in milliseconds. */
  readonly timeout: number;
  readonly question: Question | undefined;
}

/** One attempt to open a way, and what is said on it. */
interface Attempt {
  /** On opening, in milliseconds; undefined: the channel has one of its own. */
  readonly bound: number | undefined;
  readonly question: Question | undefined;
  /** What an answer may take from now on. */
  left(): number;
}

/** Why there is no good answer. `bad`: there is one, and it is not good. */
type Shortcoming = ChannelClose | 'bad';

/**
 * Asks whether an instance can be reached, by the ways that a connection would take: its agent, and for permissive
 * services past it. Without a question not a byte of payload is sent.
 */
export class Prober {
  readonly #deps: ProberDependencies;
  readonly #now: () => number;

  constructor(dependencies: ProberDependencies) {
    this.#deps = dependencies;
    this.#now = dependencies.now ?? (() => performance.now());
  }

  /** Tells the outcome once, within `asking.timeout`, or else `agentPatience` and the times of {@link AGENT_CONNECTS}. */
  probe(service: Service, instance: Instance, done: (outcome: ProbeOutcome) => void, asking?: Asking): void {
    const deps = this.#deps;
    const token = deps.started(service, instance);
    const finish = (outcome: ProbeOutcome): void => {
      // A failure tells ejection nothing new; a success ends it.
      if (outcome === 'reached') token.connected();
      token.finished();
      done(outcome);
    };
    const opened = deps.open(service, instance, AGENT);
    const mayBypass = opened.path === 'tunnel' && service.mode === 'permissive';
    const { agentPatience, connectTimeout } = deps.settings();
    const patience = mayBypass ? agentPatience : agentPatience + AGENT_CONNECTS * connectTimeout;
    const timeout = asking?.timeout;
    const began = this.#now();
    const left = () => Math.max(0, (timeout ?? 0) - (this.#now() - began));
    const question = asking?.question;
    // Where there is a way past the agent, there must be time left for it.
    const most = timeout === undefined ? patience : mayBypass ? timeout / 2 : timeout;
    const bound = opened.viaAgent ? Math.min(patience, most) : timeout;
    this.#try(opened.channel, { bound, question, left }, (why) => {
      if (mayBypass && isAgents(why)) {
        const past = deps.past(service, instance, AGENT);
        const rest = timeout === undefined ? undefined : left();
        this.#try(past, { bound: rest, question, left }, (last) => finish(outcomeOf(last)));
      } else if (asking === undefined && isForbidden(why)) {
        // Agents are let in by no rule of their own. One that answers so stands: its callers find out the rest.
        token.finished();
        done('reached');
      } else finish(outcomeOf(why));
    });
  }

  /** Opens, asks and ends; tells what was wrong. */
  #try(
    channel: Channel,
    { bound, question, left }: Attempt,
    over: (why: Shortcoming | undefined) => void,
  ): void {
    const { after } = this.#deps;
    let late = false;
    const expired = (): void => {
      late = true;
      channel.reset('timeout');
    };
    let calm = bound === undefined ? () => {} : after(bound, expired);
    const lost = (why: ChannelClose): void => {
      calm();
      over(late ? { reason: 'timeout', delivered: why.delivered, source: 'peer' } : why);
    };
    const told = (good: boolean): void => {
      calm();
      leave(channel, after);
      over(good ? undefined : 'bad');
    };
    channel.handler = {
      ...noHandler,
      open: () => {
        if (question === undefined) {
          told(true);
          return;
        }
        calm();
        calm = after(left(), expired);
        question(channel, told, lost);
      },
      close: lost,
    };
  }
}

/** Ends a connection that has shown what it was made for; what the service says meanwhile is not heard. */
function leave(channel: Channel, after: ProberDependencies['after']): void {
  const calm = after(LINGER_MS, () => channel.reset());
  let heard = 0;
  channel.handler = {
    ...noHandler,
    data: (bytes) => {
      heard += bytes.length;
      if (heard > LINGER_BYTES) channel.reset();
    },
    close: () => calm(),
  };
  channel.resume();
  channel.end();
}

/** The other agent is to blame, and nothing was said about the instance. */
function isAgents(why: Shortcoming | undefined): boolean {
  return typeof why === 'object' && !why.delivered && why.source === 'peer' && why.reason !== 'denied';
}

/** The agent of the instance does not let this one in. */
function isForbidden(why: Shortcoming | undefined): boolean {
  return typeof why === 'object' && why.reason === 'denied' && why.source === 'callee';
}

function outcomeOf(why: Shortcoming | undefined): ProbeOutcome {
  if (why === undefined) return 'reached';
  if (why === 'bad') return 'unreached';
  return meansUnreached(why.reason) || why.reason === 'done' ? 'unreached' : 'unknown';
}
