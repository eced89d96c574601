import { chown, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Running, waitFor } from './process.ts';
import { type Host, NOBODY } from './topology.ts';

/*
 * Real servers, each as an unprivileged user in a directory of its own, listening on every address of its host.
 * Every function resolves once the server answers.
 */

/** Data directories are made once in a process and copied: making them takes longer than everything else. */
const templates = new Map<string, Promise<void>>();

async function dataDirectory(
  host: Host,
  name: string,
  target: string,
  make: (directory: string) => Promise<unknown>,
): Promise<void> {
  const template = join(dirname(host.directory), `template-${name}`);
  let ready = templates.get(template);
  if (ready === undefined) {
    ready = (async () => {
      await mkdir(template);
      await chown(template, NOBODY.uid, NOBODY.gid);
      await make(template);
    })();
    templates.set(template, ready);
  }
  await ready;
  await host.must(['cp', '-a', template, target]);
}

export async function ownDirectory(host: Host, name: string): Promise<string> {
  const directory = join(host.directory, name);
  await mkdir(directory);
  await chown(directory, NOBODY.uid, NOBODY.gid);
  return directory;
}

/** HTTP: `/` answers `NAME CALLER'S-ADDRESS`, `/blob` a megabyte. */
export async function nginx(host: Host, port: number, name: string): Promise<Running> {
  const directory = await ownDirectory(host, `nginx-${port}`);
  await writeFile(join(directory, 'blob'), Buffer.alloc(1024 * 1024, 'mesh'));
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/pid; error_log ${directory}/error.log; worker_processes 1;
events { worker_connections 16384; }
worker_rlimit_nofile 18000;
http {
  access_log ${directory}/access.log;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ')}
  server {
    listen 0.0.0.0:${port} backlog=8192;
    listen [::]:${port} backlog=8192;
    default_type text/plain;
    location / { return 200 "${name} $remote_addr\\n"; }
    location /blob { root ${directory}; }
  }
}
`,
  );
  const running = host.spawn(
    'nginx',
    ['nginx', '-e', join(directory, 'error.log'), '-c', join(directory, 'nginx.conf')],
    {
      user: NOBODY,
    },
  );
  await host.listening(port, running);
  return running;
}

export async function redis(host: Host, port = 6379): Promise<Running> {
  const directory = await ownDirectory(host, `redis-${port}`);
  const running = host.spawn(
    'redis',
    [
      'redis-server',
      '--port',
      `${port}`,
      '--bind',
      '0.0.0.0',
      '::',
      '--protected-mode',
      'no',
      '--dir',
      directory,
      '--save',
      '',
    ],
    { user: NOBODY },
  );
  await host.listening(port, running);
  return running;
}

/** PostgreSQL with user `postgres`, who needs no password. */
export async function postgres(host: Host, port = 5432): Promise<Running> {
  const directory = await ownDirectory(host, `postgres-${port}`);
  const data = join(directory, 'data');
  const bin = '/usr/lib/postgresql/15/bin';
  await dataDirectory(host, 'postgres', data, (template) =>
    host.must(
      [
        ...[`${bin}/initdb`, '-D', template, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8'],
        ...['--no-locale', '--no-sync', '--no-instructions'],
      ],
      { user: NOBODY, cwd: template },
    ),
  );
  await writeFile(join(data, 'pg_hba.conf'), 'host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n');
  const settings = {
    port,
    listen_addresses: '*',
    unix_socket_directories: directory,
    fsync: 'off',
    max_connections: 50,
  };
  const running = host.spawn(
    'postgres',
    [
      `${bin}/postgres`,
      '-D',
      data,
      ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
    ],
    { user: NOBODY, cwd: directory },
  );
  await waitFor(
    `PostgreSQL of ${host.name} answers`,
    async () => (await host.exec([`${bin}/pg_isready`, '-q', '-h', host.ipv4, '-p', `${port}`])).code === 0,
    { timeoutMs: 60_000, alive: running },
  );
  return running;
}

/** MariaDB with user `root`, who needs no password. Its server speaks first. */
export async function mariadb(host: Host, port = 3306): Promise<Running> {
  const directory = await ownDirectory(host, `mariadb-${port}`);
  // Every MariaDB that starts removes what looks like temporary tables of a dead one, and so breaks others in the same place.
  const temporary = `--tmpdir=${directory}`;
  const data = join(directory, 'data');
  await dataDirectory(host, 'mariadb', data, (template) =>
    host.must(
      [
        'mariadb-install-db',
        '--no-defaults',
        '--auth-root-authentication-method=normal',
        '--skip-name-resolve',
        '--skip-test-db',
        '--cross-bootstrap',
        `--datadir=${template}`,
        temporary,
      ],
      { user: NOBODY, cwd: template, timeoutMs: 60_000 },
    ),
  );
  const running = host.spawn(
    'mariadb',
    [
      'mariadbd',
      '--no-defaults',
      '--skip-grant-tables',
      '--skip-name-resolve',
      `--datadir=${data}`,
      temporary,
      `--socket=${directory}/socket`,
      `--pid-file=${directory}/pid`,
      `--port=${port}`,
      '--bind-address=*',
      '--innodb-flush-log-at-trx-commit=0',
      '--innodb-buffer-pool-size=16M',
    ],
    { user: NOBODY, cwd: directory },
  );
  await host.listening(port, running);
  return running;
}

export async function iperf3(host: Host, port = 5201): Promise<Running> {
  const running = host.spawn('iperf3', ['iperf3', '--server', '--port', `${port}`], { user: NOBODY });
  await host.listening(port, running);
  return running;
}

/** A Serf agent that announces services by its tags; its RPC listens on loopback. */
export async function serf(
  host: Host,
  options: {
    readonly tags: Readonly<Record<string, string>>;
    readonly join?: readonly Host[];
    readonly name?: string;
  },
): Promise<Running> {
  const running = host.spawn(
    'serf',
    [
      'serf',
      'agent',
      `-node=${options.name ?? host.name}`,
      `-bind=${host.ipv4}:7946`,
      '-rpc-addr=127.0.0.1:7373',
      '-profile=local',
      ...Object.entries(options.tags).flatMap(([key, value]) => ['-tag', `${key}=${value}`]),
      ...(options.join ?? []).map((other) => `-retry-join=${other.ipv4}:7946`),
    ],
    { user: NOBODY },
  );
  await host.listening(7373, running);
  return running;
}
