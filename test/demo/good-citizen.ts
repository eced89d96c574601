import type { MeshHost } from '../support/mesh.ts';
import { waitFor } from '../support/process.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY } from '../support/topology.ts';
import { type Checks, equal } from './checks.ts';

/** Names, honest refusals, strict services and what is left of all that when the agent is gone, on one calling host. */
export interface Scene {
  readonly checks: Checks;
  /** Calls. */
  readonly a: Host;
  /** Serves `web`, permissive, and `vault`, strict; `ghost` has no instance anywhere. */
  readonly b: Host;
  /** Stands on the same network and intercepts nothing. */
  readonly outsider: Host;
  readonly agent: MeshHost;
  readonly ports: { readonly web: number; readonly vault: number; readonly ghost: number };
}

const curl = (url: string): string[] => ['curl', '-gsS', '--max-time', '10', url];

/** How a connection attempt ended, and after how long. */
async function attempt(
  host: Host,
  to: string,
  port: number,
): Promise<{ open: boolean; said: string; ms: number }> {
  const began = performance.now();
  const { code, stderr } = await host.exec(['nc', '-vz', '-w', '5', to, `${port}`]);
  return { open: code === 0, said: stderr.trim(), ms: performance.now() - began };
}

async function refused(host: Host, to: string, port: number): Promise<string> {
  const { open, said, ms } = await attempt(host, to, port);
  if (open || !said.includes('refused')) throw new Error(`expected a refusal at connect, found: ${said}`);
  return `refused in ${ms.toFixed(0)} ms`;
}

/** Services by name, without a line of configuration in any application. */
export async function names({ checks, a, agent, ports }: Scene): Promise<void> {
  checks.heading(
    'Names: <service>.mesh is the service, wherever its instances are; nothing else meets the agent',
  );
  await checks.check('getent ahosts web.mesh', async () => {
    const addresses = (await a.must(['getent', 'ahosts', 'web.mesh'])).match(/^\S+/gm) ?? [];
    const found = [...new Set(addresses)];
    if (!found.some((ip) => /^2[45]\d\./.test(ip)) || !found.some((ip) => ip.includes(':')))
      throw new Error(`expected one virtual address of each family, found ${found.join(' ')}`);
    return found.join(' ');
  });
  const families = [
    ['-4', /^2[45]\d\./],
    ['-6', /^\[fd6d:/],
  ] as const;
  for (const [family, virtual] of families) {
    await checks.check(`curl ${family} http://web.mesh:${ports.web}/`, async () => {
      const answer = await a.must([...curl(`http://web.mesh:${ports.web}/`), family]);
      const line = await agent.logged('it', ({ destination }) => virtual.test(destination ?? ''));
      equal(line.service ?? '', 'web');
      return `answered by ${answer.trim().split(' ')[0]}, path: ${line.path}`;
    });
  }
  await checks.check('a port that the service does not have is refused, not left hanging', () =>
    refused(a, 'web.mesh', 9),
  );
  await checks.check('a service without an instance refuses at connect: nc -z tells the truth', () =>
    refused(a, 'ghost.mesh', ports.ghost),
  );
}

/** Who called is the kernel's word. */
export async function callers({ checks, a, b, agent, ports }: Scene): Promise<void> {
  checks.heading('Who is calling: the unit, container or user behind each connection');
  await checks.check('curl as the user nobody is written down as such', async () => {
    await a.must(curl(`http://${at(b.ipv4, ports.web)}/`), { user: NOBODY });
    type Named = { readonly user?: string | null };
    const line = await agent.logged('nobody', (one) => (one as Named).user === 'nobody');
    return `caller: ${String((line as { caller?: unknown }).caller)}`;
  });
}

/** A strict service is reached through the mesh or not at all. */
export async function strict({ checks, a, b, outsider, agent, ports }: Scene): Promise<void> {
  checks.heading('vault is strict: through the mesh or not at all');
  await checks.check('through the mesh it answers', async () => {
    equal((await a.must(curl(`http://${at(b.ipv4, ports.vault)}/`))).trim(), `b ${b.ipv4}`);
    return undefined;
  });
  await checks.check('from a host that does not call through the mesh it is refused', () =>
    refused(outsider, b.ipv4, ports.vault),
  );
  await checks.check('mesh-node bypass on: web goes direct at once, vault is refused', async () => {
    await bypass(agent, 'on');
    equal((await a.must(curl(`http://${at(b.ipv4, ports.web)}/`))).trim(), `b ${a.ipv4}`);
    return refused(a, b.ipv4, ports.vault);
  });
  await checks.check('mesh-node bypass off: both through the mesh again', async () => {
    await bypass(agent, 'off');
    equal((await a.must(curl(`http://${at(b.ipv4, ports.web)}/`))).trim(), `b ${b.ipv4}`);
    equal((await a.must(curl(`http://${at(b.ipv4, ports.vault)}/`))).trim(), `b ${b.ipv4}`);
    return undefined;
  });
}

async function bypass(agent: MeshHost, verb: 'on' | 'off'): Promise<void> {
  const { code, stdout, stderr } = await agent.cli(['bypass', verb]);
  if (code !== 0) throw new Error(stdout + stderr);
}

/** Every process of the agent is killed at once; nobody is there to tidy up. */
export async function killed({ checks, a, b, agent, ports }: Scene): Promise<void> {
  checks.heading('Every process of the agent on a is killed (SIGKILL): the kernel itself goes past it');
  await checks.check('web answers, directly', async () => {
    await agent.signalAll('SIGKILL');
    await agent.running.ended;
    const began = performance.now();
    const direct = `b ${a.ipv4}\n`;
    await waitFor(
      'web answers',
      async () => (await a.exec(curl(`http://${at(b.ipv4, ports.web)}/`))).stdout === direct,
      { timeoutMs: 5000 },
    );
    return `after ${(performance.now() - began).toFixed(0)} ms`;
  });
  await checks.check('vault stays refused', () => refused(a, b.ipv4, ports.vault));
  await checks.check('the agent is started again: both through the mesh', async () => {
    await agent.start();
    for (const port of [ports.web, ports.vault])
      equal((await a.must(curl(`http://${at(b.ipv4, port)}/`))).trim(), `b ${b.ipv4}`);
    return undefined;
  });
}
