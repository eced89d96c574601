/** What a terminal would obey in place of showing it. */
const CONTROL = /(?![\n\t])[\p{Cc}\p{Cf}]/gu;

/**
 * Text for a terminal: control characters, which may come from a registry, an application or a peer by way of the daemon's
 * answers and messages, are shown as question marks. Lines and tabs stay.
 */
export function printable(text: string): string {
  return text.replace(CONTROL, '?');
}

/** The same for JSON: as escapes, so that its value stays. */
export function printableJson(json: string): string {
  return json.replace(CONTROL, (character) =>
    Array.from({ length: character.length }, (_, at) => {
      const unit = character.charCodeAt(at).toString(16).padStart(4, '0');
      return `\\u${unit}`;
    }).join(''),
  );
}
