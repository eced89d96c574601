import type { AccessRequest } from '../access/rules.ts';
import type { ClientAddress } from '../model/address.ts';

/** Where a connection comes from: what the other end is told of it. */
export interface Origin {
  /** Undefined for what the agent asks by itself. */
  readonly address: ClientAddress | undefined;
  /** Text of the program that called ({@link callerText}); undefined where nobody is asked. */
  readonly program: string | undefined;
  /** The only request that is meant for now, as it is sent on; absent: whatever comes. */
  readonly request?: AccessRequest;
  /** Told what access rules have denied, or would have, for the journal of whoever asks. */
  readonly noted?: (what: string) => void;
}
