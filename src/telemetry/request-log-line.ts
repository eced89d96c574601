import { callerText } from '../model/caller.ts';
import type { RequestRecord } from '../model/request.ts';
import { jsonText } from './json-text.ts';

/** Longest name of something, and sentence about it. */
const MOST_TEXT = 256;
/** Longest target: most of them whole, and a line stays under the 4,096 bytes that a pipe takes in one piece. */
const MOST_TARGET = 512;
/** Longest of what has a form of its own: ids, addresses, methods. */
const MOST_FORMED = 64;

/** One JSON line in ASCII, like `accessLogLine`. Method, authority, target and trace come from outside. */
export function requestLogLine(record: RequestRecord): string {
  return `{"log":"request","time":"${new Date(record.startedAt).toISOString()}","id":${formed(
    record.id,
  )},"callerNode":${text(record.callerNode)},"callerService":${text(record.callerService)},"caller":${text(
    record.callerProgram ?? (record.caller === undefined ? undefined : callerText(record.caller)),
  )},"user":${text(record.caller?.user)},"callerAddress":${formed(record.callerAddress)},"service":${text(
    record.service,
  )},"instance":${text(record.instance)},"zone":${text(record.zone)},"path":"${record.path}","method":${formed(
    record.method,
  )},"authority":${text(record.authority)},"target":${jsonText(record.target, MOST_TARGET)},"status":${
    record.status
  },"requestBytes":${record.requestBytes},"responseBytes":${record.responseBytes},"durationMs":${
    Math.round(record.durationMs * 1000) / 1000
  },"attempts":${record.attempts},"reused":${record.reused},"reason":"${record.reason}","detail":${text(
    record.detail,
  )},"traceId":${formed(record.traceId)}}\n`;
}

function text(value: string | undefined): string {
  return jsonText(value, MOST_TEXT);
}

function formed(value: string | undefined): string {
  return jsonText(value, MOST_FORMED);
}
