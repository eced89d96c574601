import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { must, type Outcome, type RunOptions, run, waitFor } from './process.ts';
import { type Host, REPOSITORY, type Topology } from './topology.ts';

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
    await must([LAB, 'boot', this.#name, ...where], { timeoutMs: 30_000 });
    await this.must(['mkdir', '-p', '/run/clone/upper', '/run/clone/work', CLONE]);
    const layers = `lowerdir=${REPOSITORY.replace(/\/$/, '')},upperdir=/run/clone/upper,workdir=/run/clone/work`;
    await this.must(['mount', '-t', 'overlay', 'clone', '-o', layers, CLONE]);
  }

  /** Powers it off as an operator would. */
  async powerOff(): Promise<void> {
    await must([LAB, 'stop', this.#name], { timeoutMs: 60_000 });
  }

  exec(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run([LAB, 'run', this.#name, ...command], options);
  }

  must(command: readonly string[], options: RunOptions = {}): Promise<string> {
    return must([LAB, 'run', this.#name, ...command], options);
  }

  /** As {@link must} but with the network of the machine, for what has to be downloaded. */
  online(command: readonly string[]): Promise<string> {
    const env = Object.entries(process.env).flatMap(([key, value]) =>
      value === undefined ? [] : [[key, value]],
    );
    return must([LAB, 'online', this.#name, ...command], {
      timeoutMs: 100_000,
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
      { timeoutMs: 20_000, intervalMs: 50 },
    );
  }

  /** What a unit's programs wrote to the journal, one string for each line; by default only the daemon itself. */
  async journal(unit: string, identifier = 'mesh-node'): Promise<string[]> {
    await this.must(['journalctl', '--sync']);
    const filter = ['-u', unit, '-t', identifier, '-o', 'cat', '--no-pager', '--all'];
    return (await this.must(['journalctl', ...filter])).split('\n').filter((line) => line !== '');
  }
}
