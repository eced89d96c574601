import type { ServicePolicy } from '../model/policy.ts';
import { callerKey } from '../policy/match/request-view.ts';
import type { Origin } from './origin.ts';
import type { Choice } from './outbound-dependencies.ts';

/** What narrows the search of a connection. */
interface ConnectionScope {
  readonly choice?: Choice;
}

const unlimited: ConnectionScope = {};

/** Of a connection that is no request: by hash it goes where its caller's others went. */
export function connectionScope({ balance }: ServicePolicy, { program, address }: Origin): ConnectionScope {
  if (balance?.hash?.kind !== 'caller') return unlimited;
  const key = callerKey({ program, address: address?.ip });
  return key === undefined ? unlimited : { choice: { key } };
}
