import type { RequestRecord } from '../model/request.ts';
import { MOST_TEXT, writeCaller, writeTarget } from './line-fields.ts';
import { LineWriter } from './line-writer.ts';

/** Longest target: most of them whole, and a line stays under the 4,096 bytes that a pipe takes in one piece. */
const MOST_TARGET = 512;
/** Longest of what has a form of its own: ids, addresses, methods. */
const MOST_FORMED = 64;

const line = new LineWriter();

/** One JSON line in ASCII, like `accessLogLine`. Method, authority, target and trace come from outside. */
export function requestLogLine(record: RequestRecord): string {
  line.ascii('{"log":"request","time":"').time(record.startedAt);
  line.ascii('","id":').text(record.id, MOST_FORMED);
  line.ascii(',');
  writeCaller(line, record);
  line.ascii(',"callerAddress":').text(record.callerAddress, MOST_FORMED);
  writeTarget(line, record);
  line.ascii('","method":').text(record.method, MOST_FORMED);
  line.ascii(',"authority":').text(record.authority, MOST_TEXT);
  line.ascii(',"target":').text(record.target, MOST_TARGET);
  if (record.route !== undefined) line.ascii(',"route":').text(record.route, MOST_FORMED);
  line.ascii(',"status":').number(record.status);
  line.ascii(',"requestBytes":').number(record.requestBytes);
  line.ascii(',"responseBytes":').number(record.responseBytes);
  line.ascii(',"durationMs":').milliseconds(record.durationMs);
  line.ascii(',"attempts":').number(record.attempts);
  line.ascii(record.reused ? ',"reused":true,"reason":"' : ',"reused":false,"reason":"').ascii(record.reason);
  line.ascii('","detail":').text(record.detail, MOST_TEXT);
  line.ascii(',"traceId":').text(record.traceId, MOST_FORMED).ascii('}\n');
  return line.take();
}
