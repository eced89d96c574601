import { type Placement, runIn } from '../process.ts';

interface IperfReport {
  readonly error?: string;
  readonly end?: { readonly sum_received?: { readonly bytes: number; readonly seconds: number } };
}

/** Sends in one connection for some seconds; gives what arrived. */
export async function iperf(
  placement: Placement,
  to: { readonly address: string; readonly port: number },
  seconds: number,
): Promise<{ bytes: number; gbitPerSecond: number }> {
  const shape = [
    '-c',
    to.address,
    '-p',
    String(to.port),
    '-t',
    String(seconds),
    '--connect-timeout',
    '5000',
    '-J',
  ];
  const report = JSON.parse(await runIn(placement, ['iperf3', ...shape])) as IperfReport;
  const received = report.end?.sum_received;
  if (received === undefined || received.bytes === 0) {
    throw new Error(`iperf3 delivered nothing: ${report.error ?? 'no summary'}`);
  }
  return { bytes: received.bytes, gbitPerSecond: (received.bytes * 8) / received.seconds / 1e9 };
}
