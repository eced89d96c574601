import type { ConnectionRecord } from '../model/connection.ts';
import { MOST_TEXT, writeCaller, writeTarget } from './line-fields.ts';
import { LineWriter } from './line-writer.ts';

const line = new LineWriter();

/** One JSON line in ASCII, so that its length is its number of bytes. */
export function accessLogLine(record: ConnectionRecord): string {
  line.ascii('{"log":"access","time":"').time(record.startedAt);
  line.ascii('","id":').text(record.id, MOST_TEXT);
  line.ascii(',"direction":"').ascii(record.direction);
  line.ascii('",');
  writeCaller(line, record);
  line.ascii(',"callerAddress":').text(record.callerAddress, MOST_TEXT);
  line.ascii(',"destination":').text(record.destination, MOST_TEXT);
  writeTarget(line, record);
  line.ascii('","bytesSent":').number(record.bytesSent);
  line.ascii(',"bytesReceived":').number(record.bytesReceived);
  line.ascii(',"durationMs":').milliseconds(record.durationMs);
  line.ascii(',"attempts":').number(record.attempts);
  if (record.detected !== undefined) line.ascii(',"detected":"').ascii(record.detected).ascii('"');
  if (record.access !== undefined) line.ascii(',"access":').text(record.access, MOST_TEXT);
  line.ascii(',"reason":"').ascii(record.reason);
  line.ascii('","detail":').text(record.detail, MOST_TEXT).ascii('}\n');
  return line.take();
}
