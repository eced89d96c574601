import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { must, type Outcome, type RunOptions, run, waitFor } from './process.ts';
import { type Host, REPOSITORY, type Topology } from './topology.ts';

/** Where a program finds itself on such a host, and what it is given. */
const INSIDE = ['--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup', '--root', '--wd', 'env', '-i'];
const ENVIRONMENT = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  ...['HOME=/root', 'LC_ALL=C.UTF-8', 'TERM=dumb'],
];
const ADMIN_SOCKET = '/run/mesh-node/admin.sock';
const LAB = join(REPOSITORY, 'scripts/systemd-lab');
/** Where the repository lies on such a host, as an operator's clone would: it can be written, and nothing comes back. */
export const CLONE = '/srv/mesh-node';

/** A host of a topology on which a real systemd runs. What is written on it stays on a disk of its own. */
export class SystemdHost {
  readonly host: Host;
  /** Everything that was written on this host since its first boot. */
  readonly written: string;
  readonly #name: string;
  readonly #disk: string;
  /** Process id of its systemd, seen from here. */
  #init = '';

  private constructor(host: Host) {
    this.host = host;
    this.#name = host.namespace;
    this.#disk = join(host.directory, 'disk');
    this.written = join(this.#disk, 'upper');
  }

  /** Boots a systemd in the network namespace of a host. */
  static async boot(topology: Topology, name: string): Promise<SystemdHost> {
    const machine = new SystemdHost(topology.host(name));
    await mkdir(machine.#disk);
    await topology.mount(machine.#disk, '512m');
    await machine.boot();
    return machine;
  }

  async boot(): Promise<void> {
    const { namespace } = this.host;
    const where = ['--netns', namespace, '--disk', this.#disk, '--bind', REPOSITORY];
    await must([LAB, 'boot', this.#name, ...where], { timeoutMs: 60_000 });
    this.#init = (await must([LAB, 'pid', this.#name])).trim();
    await this.must(['mkdir', '-p', '/run/clone/upper', '/run/clone/work', CLONE]);
    const layers = `lowerdir=${REPOSITORY.replace(/\/$/, '')},upperdir=/run/clone/upper,workdir=/run/clone/work`;
    await this.must(['mount', '-t', 'overlay', 'clone', '-o', layers, CLONE]);
  }

  /** Powers it off as an operator would. */
  async powerOff(): Promise<void> {
    await must([LAB, 'stop', this.#name], { timeoutMs: 60_000 });
  }

  exec(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run(this.#inside(command), options);
  }

  must(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return must(this.#inside(command), options);
  }

  /** What `scripts/systemd-lab run` does, which looks for the process anew each time. */
  #inside(command: readonly string[]): readonly string[] {
    return ['nsenter', '--target', this.#init, ...INSIDE, ...ENVIRONMENT, ...command];
  }

  /** Asks the admin API of its agent: for waiting, where the command line would cost ten times as much. */
  async api(path: string): Promise<unknown> {
    const curl = ['curl', '-gsS', '--max-time', '5', '--unix-socket', ADMIN_SOCKET];
    return JSON.parse(await this.must([...curl, `http://mesh-node${path}`]));
  }

  /** As {@link must} but with the network of the machine, for what has to be downloaded. */
  online(command: readonly string[]): Promise<string> {
    const env = Object.entries(process.env).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, value]],
    );
    return must([LAB, 'online', this.#name, ...command], {
      timeoutMs: 200_000,
      env: Object.fromEntries(env),
    });
  }

  /** Copies files and directories to the same place of another host, as `scp -rp` would. */
  async copyTo(other: SystemdHost, paths: readonly string[]): Promise<void> {
    const [lab, from, to] = [LAB, this.#name, other.#name];
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is bash's
    const pipe = 'set -o pipefail; "$1" run "$2" tar -C / -c "${@:4}" | "$1" run "$3" tar -C / -x';
    const relative = paths.map((path) => path.replace(/^\//, ''));
    await must(['bash', '-c', pipe, 'copy', lab, from, to, ...relative]);
  }

  write(file: string, text: string): Promise<string> {
    return this.must(['tee', file], { input: text });
  }

  /** A property of a unit, as `systemctl show` says it. */
  async show(unit: string, property: string): Promise<string> {
    return (await this.must(['systemctl', 'show', unit, '--value', '-p', property])).trim();
  }

  async waitActive(unit: string, besides?: string): Promise<string> {
    return await waitFor(
      `${unit} is active on ${this.host.name}`,
      async () => {
        const [state, pid] = await Promise.all([this.show(unit, 'SubState'), this.show(unit, 'MainPID')]);
        return state === 'running' && pid !== besides && pid;
      },
      { timeoutMs: 60_000, intervalMs: 50 },
    );
  }

  /** What a unit's programs wrote to the journal, one string for each line; by default only the daemon itself. */
  async journal(unit: string, identifier = 'mesh-node'): Promise<string[]> {
    await this.must(['journalctl', '--sync']);
    const filter = ['-u', unit, '-t', identifier, '-o', 'cat', '--no-pager', '--all'];
    return (await this.must(['journalctl', ...filter])).split('\n').filter((line) => line !== '');
  }
}
