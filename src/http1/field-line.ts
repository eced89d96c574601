import { MeshError } from '../model/errors.ts';
import { consistsOf, TOKEN, VALUE } from './characters.ts';
import { KNOWN_NAMES } from './known-fields.ts';

/**
 * A field line for `HeadChanges.add`, with its end. Throws a `configuration` MeshError for what is no name or no value,
 * and for fields that the codec writes itself: nobody can add another framing, or a second line, to a head.
 */
export function fieldLine(name: string, value: string): string {
  const valid = consistsOf(name, 0, name.length, TOKEN);
  if (!valid || KNOWN_NAMES.includes(name, 0, name.length)) {
    throw new MeshError(
      'configuration',
      'agent',
      `no field of this name can be added: ${JSON.stringify(name)}`,
    );
  }
  if (value !== '' && !consistsOf(value, 0, value.length, VALUE)) {
    throw new MeshError(
      'configuration',
      'agent',
      `field ${name} cannot have the value ${JSON.stringify(value)}`,
    );
  }
  return `${name}: ${value}\r\n`;
}
