/** One column: its title and how its cells are aligned. */
export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

const GAP = 2;
/** Columns are not cut below this: a name of three letters tells nothing. */
const LEAST_WIDTH = 8;
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/;

/** Letters and figures take one place on a terminal, those of East Asian scripts two. */
function widthOf(text: string): number {
  let width = 0;
  for (const c of text) width += WIDE.test(c) || c.codePointAt(0)! > 0x1f000 ? 2 : 1;
  return width;
}

/** Control characters from a registry or an application must not reach the terminal. */
function clean(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, '?');
}

function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const c of text) {
    const next = used + widthOf(c);
    if (next > width - 1) break;
    kept += c;
    used = next;
  }
  return `${kept}…`;
}

/**
 * A table for people. With a terminal's width, the widest columns give way until the lines fit; without one (a pipe)
 * nothing is cut.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width?: number,
): string {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => row.map(clean))];
  const widths = columns.map((_, i) => Math.max(...cells.map((row) => widthOf(row[i] ?? ''))));
  if (width !== undefined) shrink(widths, width - GAP * (columns.length - 1));
  return cells
    .map((row) =>
      columns
        .map((column, i) => {
          const text = cut(row[i] ?? '', widths[i]!);
          const fill = ' '.repeat(Math.max(0, widths[i]! - widthOf(text)));
          return column.align === 'right' ? fill + text : text + fill;
        })
        .join(' '.repeat(GAP))
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

function shrink(widths: number[], room: number): void {
  let over = widths.reduce((sum, one) => sum + one, 0) - room;
  while (over > 0) {
    const widest = Math.max(...widths);
    if (widest <= LEAST_WIDTH) return;
    widths[widths.indexOf(widest)]!--;
    over--;
  }
}

/** `name: value` lines with the values below each other. */
export function fields(pairs: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...pairs.map(([name]) => widthOf(name)));
  return pairs.map(([name, value]) => `${name.padEnd(width + GAP)}${clean(value)}\n`).join('');
}

/** 1536 → `1.5 KiB`. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** Milliseconds → `850ms`, `12s`, `3m20s`, `5h12m`, `3d4h`. */
export function durationText(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${seconds % 60}s`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours}h${minutes % 60}m` : `${Math.floor(hours / 24)}d${hours % 24}h`;
}
