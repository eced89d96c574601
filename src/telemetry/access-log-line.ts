import { callerText } from '../model/caller.ts';
import type { ConnectionRecord } from '../model/connection.ts';
import { LineWriter } from './line-writer.ts';

/** Longest text that is written; a line then stays under the 4,096 bytes that a pipe takes in one piece. */
const MOST_TEXT = 256;

const line = new LineWriter();

/** One JSON line in ASCII, so that its length is its number of bytes. */
export function accessLogLine(record: ConnectionRecord): string {
  const { caller } = record;
  const program = record.callerProgram ?? (caller === undefined ? undefined : callerText(caller));
  line.ascii('{"log":"access","time":"').time(record.startedAt);
  line.ascii('","id":').text(record.id, MOST_TEXT);
  line.ascii(',"direction":"').ascii(record.direction);
  line.ascii('","callerNode":').text(record.callerNode, MOST_TEXT);
  line.ascii(',"callerService":').text(record.callerService, MOST_TEXT);
  line.ascii(',"caller":').text(program, MOST_TEXT);
  line.ascii(',"user":').text(caller?.user, MOST_TEXT);
  line.ascii(',"callerAddress":').text(record.callerAddress, MOST_TEXT);
  line.ascii(',"destination":').text(record.destination, MOST_TEXT);
  line.ascii(',"service":').text(record.service, MOST_TEXT);
  line.ascii(',"instance":').text(record.instance, MOST_TEXT);
  line.ascii(',"zone":').text(record.zone, MOST_TEXT);
  line.ascii(',"path":"').ascii(record.path);
  line.ascii('","bytesSent":').number(record.bytesSent);
  line.ascii(',"bytesReceived":').number(record.bytesReceived);
  line.ascii(',"durationMs":').milliseconds(record.durationMs);
  line.ascii(',"attempts":').number(record.attempts);
  line.ascii(',"reason":"').ascii(record.reason);
  line.ascii('","detail":').text(record.detail, MOST_TEXT).ascii('}\n');
  return line.take();
}
