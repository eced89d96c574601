import { meansUnreached, type ProbeOutcome } from '../balance/outages.ts';
import type { Channel, ChannelClose, ChannelHandler } from '../io/channel.ts';
import type { Instance, Service } from '../model/service.ts';
import type { Origin } from './origin.ts';
import { AGENT_CONNECTS, type OpenedPath, type PickToken } from './outbound-dependencies.ts';

/** How long a probed service may take to answer the end of the connection before it is reset. */
const LINGER_MS = 1_000;

/** Nobody called: the agent asks by itself. */
const AGENT: Origin = { address: undefined, program: undefined };

export interface ProberDependencies {
  open(service: Service, instance: Instance, origin: Origin): OpenedPath;
  past(service: Service, instance: Instance, origin: Origin): Channel;
  started(service: Service, instance: Instance): PickToken;
  after(milliseconds: number, expired: () => void): () => void;
  settings(): { readonly agentPatience: number; readonly connectTimeout: number };
}

/**
 * Asks whether an instance can be reached, by the ways that a connection would take (its agent, and for permissive
 * services past it), and without a byte of payload.
 */
export class Prober {
  readonly #deps: ProberDependencies;

  constructor(dependencies: ProberDependencies) {
    this.#deps = dependencies;
  }

  /** Tells the outcome once, within `agentPatience` and the times of {@link AGENT_CONNECTS}. */
  probe(service: Service, instance: Instance, done: (outcome: ProbeOutcome) => void): void {
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
    this.#try(opened.channel, opened.viaAgent ? patience : undefined, (why) => {
      if (mayBypass && why?.source === 'peer' && why.reason !== 'denied') {
        const past = deps.past(service, instance, AGENT);
        this.#try(past, undefined, (last) => finish(outcomeOf(last)));
      } else finish(outcomeOf(why));
    });
  }

  /** Opens and closes; tells why it did not open. `bound`: milliseconds, for channels that have none of their own. */
  #try(channel: Channel, bound: number | undefined, over: (why: ChannelClose | undefined) => void): void {
    const { after } = this.#deps;
    let late = false;
    const calm =
      bound === undefined
        ? () => {}
        : after(bound, () => {
            late = true;
            channel.reset('timeout');
          });
    channel.handler = {
      ...silent,
      open: () => {
        calm();
        leave(channel, after);
        over(undefined);
      },
      close: (why) => {
        calm();
        over(late ? { reason: 'timeout', delivered: false, source: 'peer' } : why);
      },
    };
  }
}

const silent: ChannelHandler = { data() {}, end() {}, drain() {}, close() {} };

/** Ends a connection that has shown what it was made for; what the service says meanwhile is not heard. */
function leave(channel: Channel, after: ProberDependencies['after']): void {
  const calm = after(LINGER_MS, () => channel.reset());
  channel.handler = { ...silent, close: () => calm() };
  channel.resume();
  channel.end();
}

function outcomeOf(why: ChannelClose | undefined): ProbeOutcome {
  // Access rules turn agents away as well; their word is that the instance is theirs, and callers are told the rest.
  if (why === undefined || (why.reason === 'denied' && why.source === 'callee')) return 'reached';
  return meansUnreached(why.reason) ? 'unreached' : 'unknown';
}
