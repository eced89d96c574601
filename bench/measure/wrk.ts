import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Placement, runIn } from '../process.ts';

/** Called once at the end of a run; prints exact numbers where wrk's own output is rounded. */
const REPORT = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"durationUs":%d,"bytes":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,"p50Us":%d,"p99Us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
`;

/** One run of wrk. */
interface WrkResult {
  readonly requests: number;
  readonly requestsPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** What wrk shall do. */
interface WrkLoad {
  readonly url: string;
  readonly connections: number;
  /** Whole seconds. */
  readonly seconds: number;
  /** A new connection for each request. */
  readonly close: boolean;
  /** Bytes of one right answer, head included. */
  readonly responseBytes: number;
}

/** Runs wrk with one thread. Throws when a request failed or the bytes received are not those of right answers. */
export async function wrk(placement: Placement, directory: string, load: WrkLoad): Promise<WrkResult> {
  const script = join(directory, 'wrk.lua');
  writeFileSync(script, REPORT);
  const shape = ['-t', '1', '-c', String(load.connections), '-d', `${load.seconds}s`, '--timeout', '5s'];
  const header = load.close ? ['-H', 'Connection: close'] : [];
  const output = await runIn(placement, ['wrk', ...shape, ...header, '-s', script, load.url]);
  const line = /^RESULT (.*)$/m.exec(output)?.[1];
  if (line === undefined) throw new Error(`wrk printed no result: ${output}`);
  const result = JSON.parse(line) as Record<string, number>;
  const { requests = 0, durationUs = 0, bytes = 0, p50Us = 0, p99Us = 0 } = result;
  const failed = ['connect', 'read', 'write', 'status', 'timeout'].filter((kind) => result[kind] !== 0);
  if (failed.length > 0) {
    throw new Error(`wrk saw errors: ${failed.map((kind) => `${kind} ${result[kind]}`).join(', ')}`);
  }
  if (requests === 0) throw new Error('wrk completed no request');
  // Connections that were in the middle of an answer when time was up make the only allowed difference.
  const expected = requests * load.responseBytes;
  if (bytes < expected || bytes > expected + load.connections * load.responseBytes) {
    throw new Error(`wrk received ${bytes} bytes in ${requests} answers of ${load.responseBytes} bytes`);
  }
  return { requests, requestsPerSecond: (requests * 1e6) / durationUs, p50Us, p99Us };
}
