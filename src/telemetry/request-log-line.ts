import { callerText } from '../model/caller.ts';
import type { RequestRecord } from '../model/request.ts';
import { LineWriter } from './line-writer.ts';

/** Longest name of something, and sentence about it. */
const MOST_TEXT = 256;
/** Longest target: most of them whole, and a line stays under the 4,096 bytes that a pipe takes in one piece. */
const MOST_TARGET = 512;
/** Longest of what has a form of its own: ids, addresses, methods. */
const MOST_FORMED = 64;

const line = new LineWriter();

/** One JSON line in ASCII, like `accessLogLine`. Method, authority, target and trace come from outside. */
export function requestLogLine(record: RequestRecord): string {
  const { caller } = record;
  const program = record.callerProgram ?? (caller === undefined ? undefined : callerText(caller));
  line.ascii('{"log":"request","time":"').time(record.startedAt);
  line.ascii('","id":').text(record.id, MOST_FORMED);
  line.ascii(',"callerNode":').text(record.callerNode, MOST_TEXT);
  line.ascii(',"callerService":').text(record.callerService, MOST_TEXT);
  line.ascii(',"caller":').text(program, MOST_TEXT);
  line.ascii(',"user":').text(caller?.user, MOST_TEXT);
  line.ascii(',"callerAddress":').text(record.callerAddress, MOST_FORMED);
  line.ascii(',"service":').text(record.service, MOST_TEXT);
  line.ascii(',"instance":').text(record.instance, MOST_TEXT);
  line.ascii(',"zone":').text(record.zone, MOST_TEXT);
  line.ascii(',"path":"').ascii(record.path);
  line.ascii('","method":').text(record.method, MOST_FORMED);
  line.ascii(',"authority":').text(record.authority, MOST_TEXT);
  line.ascii(',"target":').text(record.target, MOST_TARGET);
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
