import type { EndReason } from '../model/connection.ts';
import type { RequestEndReason } from '../model/request.ts';

/** What the agent itself answers with, in the words of RFC 9110, 15. */
const phrases: Readonly<Record<number, string>> = {
  301: 'Moved Permanently',
  302: 'Found',
  303: 'See Other',
  307: 'Temporary Redirect',
  308: 'Permanent Redirect',
  400: 'Bad Request',
  403: 'Forbidden',
  414: 'URI Too Long',
  417: 'Expectation Failed',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  505: 'HTTP Version Not Supported',
  508: 'Loop Detected',
};

export interface LocalAnswer {
  readonly status: number;
  /** Stands in `mesh-error`. */
  readonly reason: RequestEndReason;
  /** One sentence for people. */
  readonly detail: string | undefined;
  /** The answer of a HEAD request has no content. */
  readonly withoutContent: boolean;
  readonly connection: 'close' | 'keep-alive' | undefined;
  /** Further lines, made by `fieldLine`. */
  readonly fields?: string;
}

/** An answer of the agent itself, whole. */
export function localAnswerText(answer: LocalAnswer): { readonly head: string; readonly content: string } {
  const { status, reason, detail, connection } = answer;
  const content = answer.withoutContent ? '' : `mesh-node: ${printable(detail || reason)}\n`;
  const head = [
    `HTTP/1.1 ${status} ${phrases[status] ?? 'Error'}`,
    `date: ${new Date().toUTCString()}`,
    `mesh-error: ${reason}`,
    'content-type: text/plain',
    ...(answer.withoutContent ? [] : [`content-length: ${content.length}`]),
    ...(connection === undefined ? [] : [`connection: ${connection}`]),
  ];
  return { head: `${head.join('\r\n')}\r\n${answer.fields ?? ''}\r\n`, content };
}

/**
 * The status for a request that came to nothing. 504: nobody answered in time. 502: it may have been heard, and no
 * answer came. 403: access rules do not let the caller in. 503: it was not heard by anybody.
 */
export function failureStatus(reason: EndReason, delivered: boolean): number {
  if (reason === 'denied' && !delivered) return 403;
  if (reason === 'timeout') return 504;
  return delivered ? 502 : 503;
}

/** Details come from elsewhere, other agents included: one line of ASCII, so that its length is its number of bytes. */
function printable(text: string): string {
  return text.slice(0, 256).replace(/[^\x20-\x7e]/g, '?');
}
