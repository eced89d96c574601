import { parseServiceName, type ServiceName } from '../model/service.ts';
import { DerError, DerReader, encodeDer, sameBytes, tag } from './der.ts';

/** What an authority lets a node do. */
export interface Grants {
  readonly callAs: ReadonlySet<ServiceName | '*'>;
  readonly host: ReadonlySet<ServiceName | '*'>;
  readonly relay: boolean;
}

/**
 * The extension of ours, under 2.25 (an arc for everybody with a UUID, ITU-T X.667), here UUID
 * 360bedd3-3565-41b4-a1ee-12b85f74ef83. Its value:
 *
 *     MeshGrants ::= SEQUENCE {
 *       version  INTEGER (1),
 *       callAs   SEQUENCE SIZE (0..1024) OF UTF8String,  -- service names, or "*" for any
 *       host     SEQUENCE SIZE (0..1024) OF UTF8String,
 *       relay    BOOLEAN,
 *       ... }
 *
 * Later versions of the agent may add elements that grant more at the end: older ones skip them. Anything that
 * takes a grant away needs another version number. Not critical, because OpenSSL refuses every certificate with a
 * critical extension that it does not know; the verifier refuses certificates without it.
 */
export const grantsOid = '2.25.71840250702572813510601094702453550979';

/** Most names in one list. A node that hosts more than this should be given `*`. */
export const MAX_GRANTED_NAMES = 1024;

const VERSION = Uint8Array.of(1);

/** The value of the extension. The lists must hold service names (checked by the caller) and fit their bound. */
export function encodeGrants(grants: Grants): Uint8Array {
  const names = (list: ReadonlySet<string>) =>
    encodeDer(tag.sequence, ...[...list].sort().map((name) => encodeDer(tag.utf8String, Buffer.from(name))));
  return encodeDer(
    tag.sequence,
    encodeDer(tag.integer, VERSION),
    names(grants.callAs),
    names(grants.host),
    encodeDer(tag.boolean, Uint8Array.of(grants.relay ? 0xff : 0)),
  );
}

/** Reads the value of the extension; throws {@link DerError}. */
export function decodeGrants(value: Uint8Array): Grants {
  const outer = new DerReader(value);
  const body = outer.enter(tag.sequence, 'the grants extension');
  outer.finish('the grants extension');
  if (!sameBytes(body.read(tag.integer, 'its version'), VERSION)) {
    throw new DerError('the grants extension has a version that this agent does not know');
  }
  const callAs = decodeNames(body.enter(tag.sequence, 'the list of services to call as'));
  const host = decodeNames(body.enter(tag.sequence, 'the list of services to host'));
  const relay = body.read(tag.boolean, 'the relay grant');
  if (relay.length !== 1 || (relay[0] !== 0 && relay[0] !== 0xff)) {
    throw new DerError('the relay grant is neither true nor false');
  }
  while (body.next !== undefined) body.read(body.next, 'a later element of the grants extension');
  return { callAs, host, relay: relay[0] === 0xff };
}

function decodeNames(list: DerReader): ReadonlySet<ServiceName | '*'> {
  const names = new Set<ServiceName | '*'>();
  for (let count = 0; !list.done; count++) {
    if (count === MAX_GRANTED_NAMES) throw new DerError(`it grants more than ${MAX_GRANTED_NAMES} names`);
    // latin1: a byte that is no ASCII letter can then never become a valid name.
    const text = Buffer.from(list.read(tag.utf8String, 'a granted name')).toString('latin1');
    const name = text === '*' ? text : parseServiceName(text);
    if (name === undefined) throw new DerError('a granted name is not a service name');
    names.add(name);
  }
  return names;
}
