import { createHash } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { waitFor } from '../support/process.ts';
import { at, Site } from '../support/site.ts';
import type { Host, SpawnOptions } from '../support/topology.ts';
import { Topology } from '../support/topology.ts';
import { twoZones } from '../support/zones.ts';
import { blob, grpc, type Keys, mailDirectory, makeKeys, PORTS, startServers, uploads } from './servers.ts';

/*
 * Programs that nobody here wrote, unchanged, against servers that nobody here wrote, on another host. Each test sees
 * that the program got what it wanted, and in the access log of its host that all its connections took the path that
 * they should have taken and ended well.
 */

let site: Site;
let keys: Keys;
let a: Host;
let payload: string;

beforeAll(async () => {
  const topology = await Topology.create('mnlab', twoZones);
  site = await Site.create(topology);
  a = site.host('a');
  const servers = [site.host('b'), site.host('c')];
  keys = await makeKeys(join(topology.directory, 'keys'), servers);
  payload = join(a.directory, 'payload');
  await writeFile(payload, Buffer.alloc(3_000_001, 'what goes up must come down '));
  await Promise.all([...servers.map((host) => startServers(host, keys)), site.start({ services: PORTS })]);
});
afterAll(() => site.topology.stop());

async function sha256(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

describe.each([
  ['b', 'ipv4', 'tunnel'],
  ['b', 'ipv6', 'tunnel'],
  ['c', 'ipv4', 'relay'],
  ['c', 'ipv6', 'relay'],
] as const)('to %s on %s: %s', (name, family, path) => {
  let server: Host;
  let ip: string;
  beforeAll(() => {
    server = site.host(name);
    ip = server.address(family);
  });

  /** Runs a program on a and looks at the connections it made: at least so many, all by the right path. */
  async function carried(
    service: keyof typeof PORTS,
    connections: number,
    command: readonly string[],
    options: SpawnOptions = {},
  ): Promise<string> {
    const destination = at(ip, PORTS[service]);
    const lines = async () =>
      (await site.mesh('a').accessLog()).filter((line) => line.destination === destination);
    const before = (await lines()).length;
    const said = await a.must(command, { timeoutMs: 30_000, ...options });
    const fresh = await waitFor(`${connections} connections to ${destination} are written down`, async () => {
      const now = (await lines()).slice(before);
      return now.length >= connections && now;
    });
    for (const line of fresh) {
      expect(line).toMatchObject({
        path,
        service,
        callerService: 'shop',
        attempts: 1,
      });
      // Some programs reset what they no longer need: so does iperf3's server at the end of a test.
      const ends = ['done', 'client-reset', ...(service === 'iperf' ? ['reset'] : [])];
      expect(ends, line.detail ?? '').toContain(line.reason);
    }
    return said;
  }
  const url = (service: keyof typeof PORTS, file = '', scheme = 'http') =>
    `${scheme}://${at(ip, PORTS[service])}/${file}`;
  const curl = (...args: readonly string[]) => ['curl', '-gsS', '--max-time', '20', ...args];
  const seen = (method: string, protocol: string) => `${name} ${method} ${protocol} ${ip}\n`;

  describe('HTTP', () => {
    test('curl: HTTP/1.1, and one connection for several requests', async () => {
      const twice = ['-w', '%{num_connects}\n', url('http'), url('http')];
      const once = seen('GET', 'HTTP/1.1');
      expect(await carried('http', 1, curl(...twice))).toBe(`${once}1\n${once}0\n`);
    });

    test('curl: HTTP/2 without TLS, by prior knowledge', async () => {
      const said = await carried('h2c', 1, curl('--http2-prior-knowledge', url('h2c')));
      expect(said).toBe(seen('GET', 'HTTP/2.0'));
    });

    test('curl: HTTPS, the certificate is that of the server', async () => {
      const flags = ['--cacert', keys.certificate, '-w', '%{ssl_verify_result}'];
      expect(await carried('https', 1, curl(...flags, '--http1.1', url('https', '', 'https')))).toBe(
        `${seen('GET', 'HTTP/1.1')}0`,
      );
      expect(await carried('https', 1, curl(...flags, '--http2', url('https', '', 'https')))).toBe(
        `${seen('GET', 'HTTP/2.0')}0`,
      );
    });

    test.each(['http', 'files', 'h2c', 'https'] as const)('curl: a download from %s', async (service) => {
      const target = join(a.directory, 'download');
      const scheme = service === 'https' ? 'https' : 'http';
      const flags = ['--cacert', keys.certificate, ...(service === 'h2c' ? ['--http2-prior-knowledge'] : [])];
      await carried(service, 1, curl(...flags, '-o', target, url(service, 'blob', scheme)));
      expect(await sha256(target)).toBe(await sha256(blob(server)));
    });

    test.each([
      ['with a length', ['-T', 'PAYLOAD']],
      ['in chunks', ['-T', 'PAYLOAD', '-H', 'Transfer-Encoding: chunked']],
      [
        'after 100 Continue',
        ['-T', 'PAYLOAD', '-H', 'Expect: 100-continue', '--expect100-timeout', '15', '-v'],
      ],
    ] as const)('curl: an upload %s', async (how, flags) => {
      const before = new Set(await readdir(uploads(server)));
      const command = curl(
        ...flags.map((flag) => (flag === 'PAYLOAD' ? payload : flag)),
        url('http', 'upload'),
      );
      const said = await carried('http', 1, ['sh', '-c', '"$@" 2>&1', 'sh', ...command]);
      expect(said).toContain(`${(await stat(payload)).size}\n`);
      if (how === 'after 100 Continue') expect(said).toContain('HTTP/1.1 100 Continue');
      const [stored] = (await readdir(uploads(server))).filter((file) => !before.has(file));
      expect(await sha256(join(uploads(server), stored!))).toBe(await sha256(payload));
    });

    test.each([
      ['a connection for each request', [], 300],
      ['keep-alive', ['-k'], 20],
    ] as const)('ab: %s', async (_how, flags, connections) => {
      const said = await carried('http', connections, [
        'ab',
        '-q',
        '-n',
        '300',
        '-c',
        '20',
        ...flags,
        url('http'),
      ]);
      expect(said).toMatch(/^Complete requests: +300$/m);
      expect(said).toMatch(/^Failed requests: +0$/m);
    });

    test('h2load: many streams on a few connections', async () => {
      const load = ['h2load', '-n', '400', '-c', '4', '-m', '20'];
      for (const [service, scheme] of [
        ['h2c', 'http'],
        ['https', 'https'],
      ] as const) {
        const said = await carried(service, 4, [...load, url(service, '', scheme)]);
        expect(said).toContain('400 done, 400 succeeded, 0 failed, 0 errored, 0 timeout');
      }
    });

    test('gRPC: a large message, a stream, a status', async () => {
      const said = await carried('grpc', 1, grpc('call', at(ip, PORTS.grpc)));
      expect(said).toBe('unary 2097152\nstream 1000\nstatus PERMISSION_DENIED not you\n');
    });
  });

  describe('databases', () => {
    test('redis-cli', async () => {
      const cli = ['redis-cli', '-h', ip];
      expect(await carried('redis', 1, [...cli, 'set', 'key', 'value'])).toBe('OK\n');
      expect(await carried('redis', 1, [...cli, 'get', 'key'])).toBe('value\n');
      const input = Array.from({ length: 10_000 }, (_, i) => `SET key${i} ${i}\r\n`).join('');
      expect(await carried('redis', 1, [...cli, '--pipe'], { input })).toContain('errors: 0, replies: 10000');
    });

    test('redis-benchmark', async () => {
      const load = [
        'redis-benchmark',
        '-h',
        ip,
        '-n',
        '5000',
        '-c',
        '20',
        '-P',
        '4',
        '-t',
        'set,get',
        '--csv',
      ];
      const said = await carried('redis', 40, load);
      expect(said).toMatch(/^"SET","[\d.]+"/m);
      expect(said).toMatch(/^"GET","[\d.]+"/m);
    });

    const psql = () => ['psql', '-h', ip, '-U', 'postgres', '-X', '-At', '-v', 'ON_ERROR_STOP=1'];
    test('psql: a large answer, and COPY both ways', async () => {
      const rows = 'select n, md5(n::text) from generate_series(1, 50000) n';
      const said = await carried('postgres', 1, [...psql(), '-c', rows]);
      expect(said.split('\n')).toHaveLength(50_001);
      const digest = 'select count(*), md5(string_agg(n || m, $$,$$ order by n)) from copied';
      const copy = `drop table if exists copied; create table copied (n int, m text);\n\\copy copied from '${payload}.csv' csv\n${digest};\n`;
      await writeFile(`${payload}.csv`, said.replaceAll('|', ','));
      const direct = `select count(*), md5(string_agg(n || m, $$,$$ order by n)) from (${rows}) as r (n, m)`;
      const back = await carried('postgres', 1, [...psql(), '-q'], { input: `${copy}${direct};\n` });
      const [copied, computed] = back.trim().split('\n');
      expect(copied).toMatch(/^50000\|/);
      expect(copied).toBe(computed);
    });

    test('pgbench', async () => {
      const bench = ['pgbench', '-h', ip, '-U', 'postgres', 'postgres'];
      await carried('postgres', 1, [...bench, '-i', '-q', '-s', '1']);
      const said = await carried('postgres', 4, [...bench, '-n', '-c', '4', '-t', '50']);
      expect(said).toContain('number of transactions actually processed: 200/200');
      expect(said).toContain('number of failed transactions: 0 ');
    });

    test('mariadb: the server speaks first', async () => {
      const client = ['mariadb', '--no-defaults', '-h', ip, '-u', 'root', '-N', '--batch'];
      expect(await carried('mariadb', 1, [...client, '-e', 'select 6 * 7'])).toBe('42\n');
      const large = 'select seq, repeat(md5(seq), 10) from mysql.help_topic_seq';
      const series = large.replace('mysql.help_topic_seq', 'seq_1_to_5000');
      const said = await carried('mariadb', 1, [...client, 'mysql', '-e', series]);
      expect(said.split('\n')).toHaveLength(5001);
    });
  });

  describe('SMTP: the server speaks first', () => {
    test.each([
      [
        'swaks',
        () => [
          'swaks',
          '--server',
          ip,
          '--port',
          `${PORTS.smtp}`,
          ...['--from', 'a@a.test', '--to', 'b@b.test', '--body', 'by swaks'],
        ],
      ],
      [
        'curl',
        () =>
          curl(
            `smtp://${at(ip, PORTS.smtp)}/a.test`,
            '--mail-from',
            'a@a.test',
            '--mail-rcpt',
            'b@b.test',
            '-T',
            '-',
          ),
      ],
    ] as const)('%s', async (program, command) => {
      const before = new Set(await readdir(mailDirectory(server)).catch(() => []));
      await carried('smtp', 1, command(), { input: `Subject: interop\r\n\r\nby ${program}\r\n` });
      const [mail] = (await readdir(mailDirectory(server))).filter((file) => !before.has(file));
      expect(await readFile(join(mailDirectory(server), mail!), 'utf8')).toContain(`by ${program}`);
    });
  });

  test.each([
    ['there', []],
    ['back', ['--reverse']],
    ['both at once', ['--bidir']],
  ] as const)('iperf3: %s', async (_direction, flags) => {
    // Its own control connection, and one for each direction.
    const connections = flags[0] === '--bidir' ? 3 : 2;
    const report = await carried('iperf', connections, ['iperf3', '-c', ip, '-n', '32M', '--json', ...flags]);
    type Sum = { readonly bytes: number };
    const { error, end } = JSON.parse(report) as {
      error?: string;
      end: { sum_received: Sum; sum_received_bidir_reverse?: Sum };
    };
    expect(error).toBeUndefined();
    // With --bidir the end comes when one direction is through, wherever the other one is.
    const most = Math.max(end.sum_received.bytes, end.sum_received_bidir_reverse?.bytes ?? 0);
    expect(most).toBeGreaterThan(24 * 1024 * 1024);
  });

  test('nc -N: half-closed, and the answer still comes', async () => {
    const script = `nc -N ${ip} ${PORTS.digest} <${payload}`;
    expect(await carried('digest', 1, ['sh', '-c', script])).toBe(`${await sha256(payload)}  -\n`);
  });

  test('ssh: a command, its input, its output, its exit code', async () => {
    const client = [
      ...['ssh', '-F', 'none', '-i', keys.sshKey, '-p', `${PORTS.ssh}`, '-o', 'BatchMode=yes'],
      ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR'],
    ];
    const script = '"$@" "sha256sum; exit 7" <"$0"; echo $?';
    const said = await carried('ssh', 1, ['sh', '-c', script, payload, ...client, `root@${ip}`]);
    expect(said).toBe(`${await sha256(payload)}  -\n7\n`);
  });
});
