import { consistsOf, equalsIgnoringCase, listMembers, TOKEN } from './characters.ts';
import { FieldNames } from './field-names.ts';
import { type Fields, KNOWN_MASK, known, MARKS } from './fields.ts';
import { MAX_CONNECTION_OPTIONS } from './limits.ts';
import { HttpRefusal, type Side } from './refusal.ts';

/** What the Connection fields of a message ask for (RFC 9110, 7.6.1). */
export interface ConnectionOptions {
  readonly close: boolean;
  readonly keepAlive: boolean;
  readonly upgrade: boolean;
  /** Fields that the sender declares to be for this connection only. */
  readonly fields: FieldNames | undefined;
}

const NOTHING: ConnectionOptions = { close: false, keepAlive: false, upgrade: false, fields: undefined };
const KEEP_ALIVE: ConnectionOptions = { ...NOTHING, keepAlive: true };
const CLOSE: ConnectionOptions = { ...NOTHING, close: true };
const UPGRADE: ConnectionOptions = { ...NOTHING, upgrade: true };

/**
 * Fields that nobody can take away by naming them in Connection: without them the next one would see another request.
 * Framing is written anew in any case, and some servers do name Transfer-Encoding.
 */
const KEPT = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'connection',
  'close',
  'keep-alive',
  'upgrade',
]);

/** Reads the Connection fields, `count` lines of which there are. The usual ones allocate nothing. */
export function connectionOptions(side: Side, fields: Fields, count: number): ConnectionOptions {
  if (count === 0) return NOTHING;
  const { text, marks } = fields;
  for (let at = 0; at < marks.length; at += MARKS) {
    if ((marks[at + 4]! & KNOWN_MASK) !== known.connection) continue;
    if (fields.hasTab(at / MARKS)) throw new HttpRefusal(side, 'connection-invalid');
    const from = marks[at + 2]!;
    const to = marks[at + 3]!;
    if (count === 1) {
      if (equalsIgnoringCase(text, from, to, 'keep-alive')) return KEEP_ALIVE;
      if (equalsIgnoringCase(text, from, to, 'close')) return CLOSE;
      if (equalsIgnoringCase(text, from, to, 'upgrade')) return UPGRADE;
    }
  }
  return parse(side, fields.getAll('connection'));
}

function parse(side: Side, lines: readonly string[]): ConnectionOptions {
  const options = new Set<string>();
  for (const line of lines) {
    const members = listMembers(line, MAX_CONNECTION_OPTIONS + 1);
    if (members.length > MAX_CONNECTION_OPTIONS) throw new HttpRefusal(side, 'connection-invalid');
    for (const member of members) {
      const option = member.toLowerCase();
      // Empty members are to be ignored (RFC 9110, 5.6.1.2).
      if (option === '') continue;
      if (!consistsOf(option, 0, option.length, TOKEN)) throw new HttpRefusal(side, 'connection-invalid');
      options.add(option);
    }
  }
  if (options.size > MAX_CONNECTION_OPTIONS) throw new HttpRefusal(side, 'connection-invalid');
  const named = [...options].filter((option) => !KEPT.has(option));
  return {
    close: options.has('close'),
    keepAlive: options.has('keep-alive'),
    upgrade: options.has('upgrade'),
    fields: named.length === 0 ? undefined : new FieldNames(named),
  };
}
