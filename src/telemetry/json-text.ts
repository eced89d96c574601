const PLAIN = /^[ !#-[\]-~]*$/;
/** One character of an escaped text, as it is written. */
const WRITTEN = /\\u[\da-f]{4}|\\.|[^\\]/g;

/**
 * `value` as a JSON string in ASCII, or `null`: at most `most` characters between the quotes, so that the length of a
 * line is bounded and is its number of bytes. What is beyond is cut off, never within an escape.
 */
export function jsonText(value: string | undefined, most: number): string {
  if (value === undefined) return 'null';
  if (value.length <= most && PLAIN.test(value)) return `"${value}"`;
  return `"${shortened(escaped(value.slice(0, most)), most)}"`;
}

function escaped(value: string): string {
  return JSON.stringify(value)
    .slice(1, -1)
    .replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function shortened(written: string, most: number): string {
  if (written.length <= most) return written;
  let end = 0;
  for (const [character] of written.matchAll(WRITTEN)) {
    if (end + character.length > most) break;
    end += character.length;
  }
  return written.slice(0, end);
}
