import { FirstLine } from './first-line.ts';
import type { Http1Limits } from './limits.ts';
import type { Side } from './refusal.ts';
import { SectionScanner } from './section-scanner.ts';

/** The scanner of heads, for one connection: start line and fields, within these bounds. */
export function headScanner(side: Side, limits: Http1Limits): SectionScanner {
  return new SectionScanner(side, new FirstLine(side, limits.startLine), {
    bytes: limits.head,
    fields: limits.fields,
    tooLarge: 'head-too-large',
    tooMany: 'too-many-fields',
  });
}
