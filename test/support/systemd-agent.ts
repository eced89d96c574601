import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ReadyAnswer } from '../../src/admin/api.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { AccessLine, Authority, CatalogueDocument, Grants } from './mesh.ts';
import { waitFor } from './process.ts';
import { CLONE, type SystemdHost } from './systemd-host.ts';
import { REPOSITORY } from './topology.ts';

const UNIT = 'mesh-node.service';
const CONFIGURATION = '/etc/mesh-node';

export interface SystemdAgentPlan {
  readonly grants: Grants;
  readonly catalogue: CatalogueDocument;
  readonly config?: ConfigInput;
}

/**
 * mesh-node as a unit on a host with systemd: the project's own unit and program, linked to from where `scripts/install`
 * puts them, which would take longer.
 */
export class SystemdAgent {
  readonly machine: SystemdHost;

  private constructor(machine: SystemdHost) {
    this.machine = machine;
  }

  static async start(
    machine: SystemdHost,
    authority: Authority,
    plan: SystemdAgentPlan,
  ): Promise<SystemdAgent> {
    const agent = new SystemdAgent(machine);
    const { name } = machine.host;
    await machine.must(['bash', '-euc', INSTALL]);
    await machine.write(
      '/usr/bin/mesh-node',
      `#!/bin/sh\nexec ${process.execPath} ${CLONE}/dist/main.js "$@"\n`,
    );
    await machine.must(['chmod', '755', '/usr/bin/mesh-node']);
    for (const unit of [UNIT, 'mesh-node-fallback.service']) {
      const text = await readFile(join(REPOSITORY, 'systemd', unit), 'utf8');
      await machine.write(`/etc/systemd/system/${unit}`, text);
    }
    const identity = join(machine.host.directory, 'identity');
    await mkdir(identity);
    await authority.issue(name, identity, plan.grants);
    for (const file of ['node.key', 'node.crt', 'ca.crt']) {
      await machine.write(`${CONFIGURATION}/identity/${file}`, await readFile(join(identity, file), 'utf8'));
    }
    await machine.must(['chmod', '600', `${CONFIGURATION}/identity/node.key`]);
    await machine.must(['chown', '-R', 'mesh-node:mesh-node', `${CONFIGURATION}/identity`]);
    await machine.write(`${CONFIGURATION}/catalogue.d/services.yaml`, JSON.stringify(plan.catalogue));
    const config: ConfigInput = {
      ...plan.config,
      node: { name },
      daemon: { drainTimeout: '2s' },
      telemetry: { flushInterval: '100ms', metricsListen: '127.0.0.1:15090' },
    };
    await machine.write(`${CONFIGURATION}/mesh-node.yaml`, JSON.stringify(config));
    await machine.must(['systemctl', 'daemon-reload']);
    await machine.must(['systemctl', 'start', UNIT]);
    await agent.ready();
    return agent;
  }

  async ready(): Promise<void> {
    await waitFor(
      `mesh-node of ${this.machine.host.name} is ready`,
      async () => ((await this.machine.api('/v1/ready')) as ReadyAnswer).ready,
      { timeoutMs: 60_000 },
    );
  }

  async stop(): Promise<void> {
    await this.machine.must(['systemctl', 'stop', UNIT]);
  }

  /** Every connection that has ended so far. */
  async accessLog(): Promise<AccessLine[]> {
    const lines = await this.machine.journal(UNIT);
    return lines
      .filter((line) => line.includes('"log":"access"'))
      .map((line) => JSON.parse(line) as AccessLine);
  }

  /** Waits for the line of the connection that came from this address and port. */
  logged(callerAddress: string): Promise<AccessLine> {
    return waitFor(`the access log has ${callerAddress}`, async () =>
      (await this.accessLog()).find((line) => line.callerAddress === callerAddress),
    );
  }

  /** The metrics page. */
  metrics(): Promise<string> {
    return this.machine.must(['curl', '-sS', '--max-time', '5', 'http://127.0.0.1:15090/metrics']);
  }
}

const INSTALL = `
id mesh-node >/dev/null 2>&1 || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin mesh-node
mkdir -p /usr/lib/mesh-node ${CONFIGURATION}/identity ${CONFIGURATION}/catalogue.d
ln -sf ${CLONE}/dist ${CLONE}/package.json ${CLONE}/systemd/withdraw-rules /usr/lib/mesh-node/
`;
