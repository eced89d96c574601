import { chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { must, waitFor } from '../support/process.ts';
import { iperf3, mariadb, ownDirectory, postgres, redis } from '../support/servers.ts';
import { type Host, NOBODY, REPOSITORY } from '../support/topology.ts';

/** Every server of these tests by name, with its port. */
export const PORTS = {
  http: 8080,
  h2c: 8081,
  https: 8443,
  files: 8000,
  redis: 6379,
  postgres: 5432,
  mariadb: 3306,
  smtp: 8025,
  iperf: 5201,
  digest: 7007,
  ssh: 2222,
  grpc: 50051,
} as const;

/** Debian's own Python, which has Debian's modules. */
const PYTHON = '/usr/bin/python3';
const BLOB_BYTES = 5_000_000;

/** Keys and certificates that servers and clients share. */
export interface Keys {
  readonly certificate: string;
  readonly key: string;
  readonly sshKey: string;
  readonly sshHostKey: string;
}

export async function makeKeys(directory: string, hosts: readonly Host[]): Promise<Keys> {
  await mkdir(directory);
  const at = (name: string) => join(directory, name);
  const names = hosts.flatMap((host) => [`IP:${host.ipv4}`, `IP:${host.ipv6}`]).join(',');
  await must([
    ...['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
    ...['-keyout', at('tls.key'), '-out', at('tls.crt'), '-days', '2', '-subj', '/CN=interop'],
    ...['-addext', `subjectAltName=${names}`],
  ]);
  await chown(at('tls.key'), NOBODY.uid, NOBODY.gid);
  for (const name of ['ssh', 'ssh-host'])
    await must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', at(name)]);
  return { certificate: at('tls.crt'), key: at('tls.key'), sshKey: at('ssh'), sshHostKey: at('ssh-host') };
}

/** Where nginx puts each upload, as a file of its own. */
export function uploads(host: Host): string {
  return join(host.directory, 'web', 'uploads');
}

/** What nginx and Python serve as `/blob`. */
export function blob(host: Host): string {
  return join(host.directory, 'web', 'blob');
}

async function web(host: Host, keys: Keys): Promise<void> {
  const directory = await ownDirectory(host, 'web');
  const noise = Buffer.from(Array.from({ length: 1009 }, (_, index) => (index * 7919) % 251));
  await writeFile(blob(host), Buffer.alloc(BLOB_BYTES, noise));
  const listen = (port: number, how: string) =>
    `listen 0.0.0.0:${port} ${how}; listen [::]:${port} ${how};
     location / { return 200 "${host.name} $request_method $server_protocol $remote_addr\\n"; }
     location /blob { root ${directory}; }
     location /upload { client_body_in_file_only on; proxy_pass http://unix:${directory}/sink; }`;
  const temporary = ['proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${directory}/${kind};`,
  );
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/pid; worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path ${uploads(host)}; ${temporary.join(' ')}
  default_type text/plain; client_max_body_size 0;
  server { listen unix:${directory}/sink; location / { return 200 "$content_length\\n"; } }
  server { ${listen(PORTS.http, '')} }
  server { ${listen(PORTS.h2c, 'http2')} }
  server { ssl_certificate ${keys.certificate}; ssl_certificate_key ${keys.key}; ${listen(PORTS.https, 'ssl http2')} }
}
`,
  );
  const command = ['nginx', '-e', join(directory, 'error.log'), '-c', join(directory, 'nginx.conf')];
  await host.listening(PORTS.https, host.spawn('nginx', command, { user: NOBODY }));
  const files = [PYTHON, '-m', 'http.server', '--bind', '::', '--directory', directory, `${PORTS.files}`];
  await host.listening(PORTS.files, host.spawn('http.server', files, { user: NOBODY }));
}

/** Keeps what it is sent as files of a Maildir. */
async function smtp(host: Host): Promise<void> {
  const directory = await ownDirectory(host, 'mail');
  const handler = ['-c', 'aiosmtpd.handlers.Mailbox', join(directory, 'box')];
  for (const any of ['0.0.0.0', '::']) {
    const command = ['/usr/bin/aiosmtpd', '--nosetuid', '--listen', `${any}:${PORTS.smtp}`, ...handler];
    const running = host.spawn('aiosmtpd', command, { user: NOBODY, cwd: directory });
    const reached = ['nc', '-z', any === '::' ? '::1' : '127.0.0.1', `${PORTS.smtp}`];
    await waitFor('aiosmtpd listens', async () => (await host.exec(reached)).code === 0, { alive: running });
  }
}

export function mailDirectory(host: Host): string {
  return join(host.directory, 'mail', 'box', 'new');
}

/** Reads until its caller has half-closed, then answers with the SHA-256. */
async function digest(host: Host): Promise<void> {
  const command = ['systemd-socket-activate', '--accept', '--inetd', `--listen=${PORTS.digest}`, 'sha256sum'];
  await host.listening(PORTS.digest, host.spawn('sha256sum', command, { user: NOBODY }));
}

async function ssh(host: Host, keys: Keys): Promise<void> {
  await mkdir('/run/sshd', { recursive: true, mode: 0o755 }); // where sshd confines what is not logged in yet
  const options = {
    Port: PORTS.ssh,
    HostKey: keys.sshHostKey,
    AuthorizedKeysFile: `${keys.sshKey}.pub`,
    StrictModes: 'no',
    UsePAM: 'no',
    PasswordAuthentication: 'no',
    PermitRootLogin: 'prohibit-password',
    PidFile: 'none',
  };
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  const server = host.spawn('sshd', ['/usr/sbin/sshd', '-D', '-e', '-f', '/dev/null', ...flags]);
  await host.listening(PORTS.ssh, server);
}

export function grpc(...args: readonly string[]): string[] {
  return [PYTHON, join(REPOSITORY, 'test/interop/echo.grpc.py'), ...args];
}

/** Starts all of them on a host. */
export async function startServers(host: Host, keys: Keys): Promise<void> {
  await Promise.all([
    web(host, keys),
    smtp(host),
    digest(host),
    ssh(host, keys),
    redis(host, PORTS.redis),
    postgres(host, PORTS.postgres),
    mariadb(host, PORTS.mariadb),
    iperf3(host, PORTS.iperf),
    host.listening(PORTS.grpc, host.spawn('grpc', grpc('serve', `${PORTS.grpc}`))),
  ]);
}
