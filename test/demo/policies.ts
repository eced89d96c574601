import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CatalogueDocument, MeshHost } from '../support/mesh.ts';
import { nginx } from '../support/servers.ts';
import { at } from '../support/site.ts';
import { type Host, NOBODY } from '../support/topology.ts';
import { type Checks, equal } from './checks.ts';

/** The service that policies are shown on: HTTP, at an address that nobody has, in two versions on one host. */
export const SHOP = 'shop-window';
const ADDRESS = { ip: '192.0.2.78', port: 80 } as const;
const VERSIONS = { v1: 8091, v2: 8092 } as const;

/** What operators say of a service, while it is used. */
interface PolicyScene {
  readonly checks: Checks;
  /** Calls. */
  readonly a: Host;
  readonly caller: MeshHost;
  /** Serves. */
  readonly b: Host;
  readonly callee: MeshHost;
}

export function shopDocument(ip: string): CatalogueDocument {
  const instances = Object.entries(VERSIONS).map(([version, port]) => ({
    ...{ id: version, address: at(ip, port), node: 'b', zone: 'dc1', labels: { version } },
  }));
  const service = { name: SHOP, protocol: 'http', addresses: [at(ADDRESS.ip, ADDRESS.port)] };
  return { services: [{ ...service, ports: [ADDRESS.port], instances }] };
}

/** Routes, limits and access of one service, changed while it is called. */
export async function policies({ checks, a, caller, b, callee }: PolicyScene): Promise<void> {
  checks.heading('Policies: documents of /etc/mesh-node/policies.d, in force at once, under traffic');
  const curl = ['curl', '-gsS', '--max-time', '10'];
  const url = `http://${ADDRESS.ip}/cart`;
  const get = async (...options: readonly string[]) =>
    (await a.must([...curl, ...options, url])).split(' ')[0]!;
  const many = async (count: number, ...options: readonly string[]) => {
    const found = new Map<string, number>();
    for (const said of await Promise.all(Array.from({ length: count }, () => get(...options)))) {
      found.set(said, (found.get(said) ?? 0) + 1);
    }
    return Array.from(found, ([said, times]) => `${times} × ${said}`)
      .sort()
      .join(', ');
  };
  for (const [version, port] of Object.entries(VERSIONS)) await nginx(b, port, version);
  await checks.check('without a policy both versions answer', async () => {
    const seen = await many(10);
    equal(seen, '5 × v1, 5 × v2');
    return seen;
  });
  await checks.check('a document that cannot be used is refused with its line; nothing changes', async () => {
    const path = join(caller.directory, 'draft.yaml');
    await writeFile(path, `service: ${SHOP}\nroutes:\n  - name: canary\n    percnt: 10\n`);
    const { code, stdout, stderr } = await caller.cli(['validate', path]);
    if (code !== 3) throw new Error(`validate ended with ${code}`);
    const line = /draft\.yaml:4:.*/.exec(stdout + stderr)?.[0];
    if (line === undefined) throw new Error(`no line is named: ${stdout}${stderr}`);
    return line;
  });
  await checks.check('a canary: user eve sees v2, everybody else v1', async () => {
    const eve = { name: 'eve', match: { headers: { 'x-user': 'eve' } }, subset: { version: 'v2' } };
    await caller.sayPolicies({ service: SHOP, routes: [eve, { name: 'rest', subset: { version: 'v1' } }] });
    equal(await many(10, '-H', 'x-user: eve'), '10 × v2');
    equal(await many(10), '10 × v1');
    return undefined;
  });
  await checks.check('mesh-node explain says so beforehand', async () => {
    const { stdout } = await caller.cli(['explain', url, '-H', 'x-user: eve']);
    const said = /^route +(by route eve)$/m.exec(stdout)?.[1];
    if (said === undefined || !/^\* +v2 /m.test(stdout)) throw new Error(stdout);
    return `${said}, to v2`;
  });
  await checks.check('a rate limit: what is over it gets 429', async () => {
    await caller.sayPolicies({ service: SHOP, rateLimits: [{ name: 'all', rate: '1/s', burst: 3 }] });
    const codes = await many(10, '-o', '/dev/null', '-w', '%{http_code} ');
    if (!/^[34] × 200, [67] × 429$/.test(codes)) throw new Error(codes);
    return codes;
  });
  await checks.check('access, decided where the service runs: only user nobody may call', async () => {
    await caller.sayPolicies({ service: SHOP, hops: 'three' });
    const rule = { name: 'window-shoppers', allow: ['user:nobody'] };
    const document = { service: SHOP, access: { rules: [rule], otherwise: 'deny' } };
    await callee.sayPolicies(document);
    const denied = await a.must([...curl, '-i', url]);
    const error = /^mesh-error: .*$/m.exec(denied)?.[0]?.trim();
    if (!denied.startsWith('HTTP/1.1 403') || error !== 'mesh-error: denied') throw new Error(denied);
    const { stdout } = await a.exec([...curl, url], { user: NOBODY });
    equal(stdout.split(' ')[0]!.replace('v2', 'v1'), 'v1');
    await callee.sayPolicies({ service: SHOP, hops: 'three' });
    return '403 for root, 200 for nobody';
  });
  await checks.check('mesh-node why tells what became of it', async () => {
    const { stdout } = await caller.cli(['why']);
    const line = stdout.split('\n').find((text) => text.includes(' 403 '));
    if (line === undefined) throw new Error(stdout);
    return line.trim().replace(/ +/g, ' ').slice(0, 100);
  });
}
