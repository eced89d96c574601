import { type Channel, type ChannelClose, noHandler } from '../io/channel.ts';
import { resetCode } from '../model/connection.ts';
import type { ErrorCode } from '../model/errors.ts';
import type { Candidate } from './candidate.ts';
import type { ConnectionEntry } from './connections.ts';
import { Relay, type RelayEnd } from './relay.ts';

/** A stream that a peer opened and that waits for our answer. */
export interface IncomingStream extends Channel {
  /** From now on the far end takes its bytes as delivered. */
  accept(): void;
  /** Before `accept`: refuses, as not delivered, so that the caller's agent may try elsewhere. */
  reset(code?: ErrorCode, detail?: string): void;
}

/** Refuses a stream and writes the connection down. */
export function refuse(
  stream: IncomingStream,
  entry: ConnectionEntry,
  code: ErrorCode,
  detail: string,
): void {
  stream.handler = noHandler;
  stream.reset(code, detail);
  entry.finish(code, detail);
}

/**
 * Accepts a stream once one of the upstreams opened, and relays between the two. The stream stays paused until then,
 * so a failed upstream has seen no byte and the next may be tried; when none is left the stream is refused.
 */
export function join(stream: IncomingStream, entry: ConnectionEntry, upstreams: Iterator<Candidate>): void {
  let current: Channel | undefined;
  let over = false;

  const end = (code: ErrorCode, detail: string): void => {
    if (over) return;
    over = true;
    current?.reset();
    refuse(stream, entry, code, detail);
  };
  const attempt = (failure: { code: ErrorCode; detail: string }): void => {
    const next = upstreams.next();
    if (next.done === true) {
      end(failure.code, failure.detail);
      return;
    }
    entry.attempts++;
    const candidate = next.value;
    const upstream = candidate.channel;
    current = upstream;
    upstream.handler = {
      open: () => {
        candidate.opened?.();
        if (over) return;
        over = true;
        const relay = new Relay(stream, upstream, (done) => entry.finish(done.reason, done.detail));
        entry.relay = relay;
        entry.abort = (why) => relay.abort(why);
        stream.accept();
        stream.resume();
        upstream.resume();
      },
      data: () => {},
      end: () => {},
      drain: () => {},
      close: (why) => {
        if (over) return;
        candidate.failed?.(why);
        attempt({ code: failureCode(why), detail: why.detail ?? why.reason });
      },
    };
  };

  stream.handler = {
    data: () => {},
    end: () => {},
    drain: () => {},
    close: (why) => {
      if (over) return;
      over = true;
      current?.reset();
      entry.finish(why.reason === 'reset' ? 'client-reset' : failureCode(why), why.detail);
    },
  };
  entry.abort = (why: RelayEnd) => end(resetCode(why.reason), why.detail ?? '');
  attempt({ code: 'no-instance', detail: 'no way onward' });
}

function failureCode(why: ChannelClose): ErrorCode {
  return why.reason === 'done' || why.reason === 'local' ? 'reset' : why.reason;
}
