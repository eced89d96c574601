import type { SystemdHost } from './systemd-host.ts';

/** Debian's own: other versions of the command may be installed beside it. */
const DOCKER = '/usr/bin/docker';
const IMAGE = 'lab:1';

export interface DockerPlan {
  /** Address and network of `docker0`: `10.1.2.1/24`. */
  readonly ipv4: string;
  /** Network of the containers' IPv6 addresses. */
  readonly ipv6: string;
}

export interface Container {
  readonly name: string;
  /** All 64 characters. */
  readonly id: string;
}

/** A real dockerd on a host with systemd, with one image that is made of one static program (busybox). */
export class Docker {
  readonly #machine: SystemdHost;

  private constructor(machine: SystemdHost) {
    this.#machine = machine;
  }

  /** Docker manages rules of both families, and keeps its data in memory. */
  static async start(machine: SystemdHost, plan: DockerPlan): Promise<Docker> {
    await machine.must(['mkdir', '-p', '/etc/docker']);
    const settings = {
      'storage-driver': 'vfs',
      'data-root': '/run/docker-data',
      bip: plan.ipv4,
      ipv6: true,
      'fixed-cidr-v6': plan.ipv6,
      ip6tables: true,
      experimental: true, // without it this version leaves IPv6 rules alone
    };
    await machine.write('/etc/docker/daemon.json', JSON.stringify(settings));
    await machine.must(['systemctl', 'start', 'docker.service'], { timeoutMs: 60_000 });
    await machine.must(['bash', '-euc', MAKE_IMAGE]);
    return new Docker(machine);
  }

  async run(name: string, options: readonly string[], command: readonly string[]): Promise<Container> {
    // Nothing in there hears SIGTERM: the first process of a container ignores what it has no handler for.
    const plan = ['--name', name, '--stop-timeout', '1', ...options];
    const id = await this.#docker(['run', '-d', ...plan, IMAGE, ...command]);
    return { name, id: id.trim() };
  }

  /** The address of a container on `docker0`. */
  async address(container: Container, family: 'ipv4' | 'ipv6'): Promise<string> {
    const field = family === 'ipv4' ? 'IPAddress' : 'GlobalIPv6Address';
    const format = `{{.NetworkSettings.${field}}}`;
    return (await this.#docker(['inspect', '-f', format, container.name])).trim();
  }

  exec(container: Container, command: readonly string[]): Promise<string> {
    return this.#docker(['exec', container.name, ...command]);
  }

  /** Starts containers that were stopped, in this order: they get addresses in this order. */
  async again(...containers: readonly Container[]): Promise<void> {
    for (const { name } of containers) await this.#docker(['start', name]);
  }

  async remove(container: Container): Promise<void> {
    await this.#docker(['rm', '-f', container.name]);
  }

  /** Restarts the daemon, which ends its containers. */
  async restart(): Promise<void> {
    await this.#machine.must(['systemctl', 'restart', 'docker.service'], { timeoutMs: 60_000 });
  }

  async stop(): Promise<void> {
    await this.#machine.exec(['systemctl', 'stop', 'docker.socket', 'docker.service', 'containerd.service'], {
      timeoutMs: 60_000,
    });
  }

  #docker(args: readonly string[]): Promise<string> {
    return this.#machine.must([DOCKER, ...args], { timeoutMs: 60_000 });
  }
}

const MAKE_IMAGE = `
mkdir -p /run/image/bin
cp "$(command -v busybox)" /run/image/bin/busybox
for name in sh sleep timeout wget httpd; do ln -sf busybox /run/image/bin/$name; done
mkdir -p /run/image/www
echo container > /run/image/www/index.html
tar -C /run/image -c . | ${DOCKER} import - ${IMAGE} >/dev/null
rm -r /run/image
`;
