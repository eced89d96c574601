import { callerText } from '../model/caller.ts';
import type { ConnectionRecord } from '../model/connection.ts';
import type { LineWriter } from './line-writer.ts';

/** Longest text of one field; a line then stays under the 4,096 bytes that a pipe takes in one piece. */
export const MOST_TEXT = 256;

/** Who called, as the lines of connections and of requests say it. */
export function writeCaller(
  line: LineWriter,
  record: Pick<ConnectionRecord, 'callerNode' | 'callerService' | 'caller' | 'callerProgram'>,
): void {
  const { caller } = record;
  const program = record.callerProgram ?? (caller === undefined ? undefined : callerText(caller));
  line.ascii('"callerNode":').text(record.callerNode, MOST_TEXT);
  line.ascii(',"callerService":').text(record.callerService, MOST_TEXT);
  line.ascii(',"caller":').text(program, MOST_TEXT);
  line.ascii(',"user":').text(caller?.user, MOST_TEXT);
}

/** Where it went, likewise. */
export function writeTarget(
  line: LineWriter,
  record: Pick<ConnectionRecord, 'service' | 'instance' | 'zone' | 'path'>,
): void {
  line.ascii(',"service":').text(record.service, MOST_TEXT);
  line.ascii(',"instance":').text(record.instance, MOST_TEXT);
  line.ascii(',"zone":').text(record.zone, MOST_TEXT);
  line.ascii(',"path":"').ascii(record.path);
}
