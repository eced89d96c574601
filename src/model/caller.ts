/**
 * The local program behind an intercepted connection, as far as the kernel tells. Nothing in here comes from the
 * program itself. An empty one means: the kernel no longer knew (the caller has written and closed already).
 */
export interface Caller {
  /** systemd unit of the system manager (`orders.service`); a user's own unit of the same name is not one. */
  readonly unit?: string;
  /** First 12 characters of a container's id. */
  readonly container?: string;
  /** Name of the user, or its number in text where it has no name here. */
  readonly user?: string;
}

/** Most characters of the text of a caller; unit names have at most 255. */
const MAX_CALLER_TEXT = 270;

/** The caller in one word, for people, labels and the OPEN frame: the most telling thing that is known of it. */
export function callerText(caller: Caller | undefined): string {
  if (caller?.unit !== undefined) return `unit:${caller.unit}`;
  if (caller?.container !== undefined) return `container:${caller.container}`;
  if (caller?.user !== undefined) return `user:${caller.user}`;
  return 'unknown';
}

/** Checks the form of a caller's text as a peer sends it; undefined when it has another. */
export function parseCallerText(text: string): string | undefined {
  return text.length <= MAX_CALLER_TEXT && /^(?:unknown|(?:unit|container|user):[\x21-\x7e]+)$/.test(text)
    ? text
    : undefined;
}
