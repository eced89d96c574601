import { CpuMeter } from '../measure/cpu.ts';
import type { Sample } from '../measure/sample.ts';
import { wrk } from '../measure/wrk.ts';
import { BODY } from '../site.ts';
import type { Bench, Scenario } from './scenario.ts';

/** Requests by wrk; CPU of the subject meanwhile. */
async function measureRequests(
  bench: Bench,
  connections: number,
  seconds: number,
  close: boolean,
): Promise<Sample> {
  const { site, backend, subject } = bench;
  const answer = await site.probe.exchange(backend.http, '/', close);
  if (answer.status !== 200 || answer.body !== BODY) {
    throw new Error(`wrong answer: status ${answer.status}, body ${JSON.stringify(answer.body)}`);
  }
  const url = `http://${backend.http.address}:${backend.http.port}/`;
  const meter = new CpuMeter(subject.pids);
  meter.start();
  const load = { url, connections, seconds, close, responseBytes: answer.bytes };
  const result = await wrk({ namespace: site.client.namespace, part: 'load' }, site.directory, load);
  const { cpuSeconds, coreShare } = meter.stop();
  return {
    cpuUsPerRequest: (cpuSeconds * 1e6) / result.requests,
    requestsPerSecond: result.requestsPerSecond,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
    coreShare,
  };
}

const keptAlive = (bench: Bench, connections: number, seconds: number): Promise<Sample> =>
  measureRequests(bench, connections, seconds, false);
const oneEach = (bench: Bench, connections: number, seconds: number): Promise<Sample> =>
  measureRequests(bench, connections, seconds, true);

/** Requests over connections that stay, and over one connection for each request. */
export const requestScenarios: readonly Scenario[] = [
  {
    name: 'tcp',
    title: 'HTTP requests over kept connections, through one proxy',
    role: 'single',
    connections: [1, 32, 128],
    reference: 'haproxy',
    lives: 'rounds',
    measure: keptAlive,
  },
  {
    name: 'connections',
    title: 'a new connection for each HTTP request, through one proxy',
    role: 'single',
    connections: [32],
    reference: 'haproxy',
    lives: 'rounds',
    measure: oneEach,
  },
  {
    name: 'tunnel',
    title: 'HTTP requests over kept connections, through two proxies with mutual TLS 1.3 between them',
    role: 'pair',
    connections: [1, 32, 128],
    reference: 'haproxy',
    lives: 'rounds',
    measure: keptAlive,
  },
  {
    name: 'tunnel-connections',
    title: 'a new connection for each HTTP request, through two proxies with mutual TLS 1.3 between them',
    role: 'pair',
    connections: [32],
    reference: 'haproxy',
    lives: 'rounds',
    measure: oneEach,
  },
  {
    name: 'http',
    title: 'HTTP requests over kept connections, each read by one proxy that knows 100 services',
    role: 'single',
    protocol: 'http',
    connections: [1, 32, 128],
    reference: 'haproxy',
    lives: 'rounds',
    measure: keptAlive,
  },
  {
    name: 'http-tunnel',
    title:
      'HTTP requests over kept connections, each read, through two proxies with mutual TLS 1.3 between them',
    role: 'pair',
    protocol: 'http',
    connections: [1, 32, 128],
    reference: 'haproxy',
    lives: 'rounds',
    measure: keptAlive,
  },
];
