import { callerText } from '../model/caller.ts';
import type { ConnectionRecord } from '../model/connection.ts';
import { jsonText } from './json-text.ts';

/** Longest text that is written; a line then stays under the 4,096 bytes that a pipe takes in one piece. */
const MOST_TEXT = 256;

/**
 * One JSON line in ASCII, so that its length is its number of bytes. Put together by hand: 0.7 µs;
 * JSON.stringify takes 1.7 µs and a pino call 1.25 µs for the same line (Node 20.20).
 */
export function accessLogLine(record: ConnectionRecord): string {
  return `{"log":"access","time":"${new Date(record.startedAt).toISOString()}","id":${text(record.id)},"direction":"${
    record.direction
  }","callerNode":${text(record.callerNode)},"callerService":${text(record.callerService)},"caller":${text(
    record.callerProgram ?? (record.caller === undefined ? undefined : callerText(record.caller)),
  )},"user":${text(record.caller?.user)},"callerAddress":${text(
    record.callerAddress,
  )},"destination":${text(record.destination)},"service":${text(record.service)},"instance":${text(
    record.instance,
  )},"zone":${text(record.zone)},"path":"${record.path}","bytesSent":${record.bytesSent},"bytesReceived":${
    record.bytesReceived
  },"durationMs":${Math.round(record.durationMs * 1000) / 1000},"attempts":${record.attempts},"reason":"${
    record.reason
  }","detail":${text(record.detail)}}\n`;
}

function text(value: string | undefined): string {
  return jsonText(value, MOST_TEXT);
}
