import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Pair } from '../../support/pair.ts';
import { waitFor } from '../../support/process.ts';
import { at } from '../../support/site.ts';
import { Held, knock } from '../../support/traffic.ts';

const PORT = 7000;
const SILENT = 7001;

// What cannot be done is refused at once and written down with its reason: never accepted and then silent.
describe('connections that cannot be carried', () => {
  let pair: Pair;

  beforeAll(async () => {
    pair = await Pair.start({
      servers: ['b'],
      services: { traffic: PORT },
      properties: { traffic: { mode: 'strict' } },
    });
  });
  afterAll(() => pair.stop());

  /** How a connection that says a word ends, as a program without manners sees it. */
  async function failure(ip: string, port: number): Promise<string> {
    const { failures, echoed } = await knock(pair.host('a'), ip, port);
    expect(echoed).toBe(0);
    return Object.keys(failures).join(' ');
  }

  test.each(['127.0.0.1', '::1'])('the capture port itself, at %s', async (ip) => {
    expect(await failure(ip, 15_001)).toMatch(/ECONNRESET|EPIPE/);
    const line = await pair.mesh('a').logged('the loop', ({ destination }) => destination === at(ip, 15_001));
    expect(line).toMatchObject({ reason: 'loop', path: 'none' });
  });

  test.each(['ipv4', 'ipv6'] as const)(
    'the capture port at another address of the host (%s)',
    async (family) => {
      expect(await failure(pair.host('a').address(family), 15_001)).toMatch(/ECONNREFUSED/);
    },
  );

  test('an instance on whose port nobody listens', async () => {
    const document = pair.catalogue();
    const ip = pair.host('b').address('ipv4');
    const services = document.services!.map((service) => ({
      ...service,
      instances: [...service.instances, { address: at(ip, SILENT), node: 'b', zone: 'dc1' }],
    }));
    for (const name of ['b', 'a']) {
      await pair.mesh(name).writeCatalogue('services.yaml', { ...document, services });
      await waitFor(
        `${name} knows it`,
        async () => (await pair.mesh(name).status()).snapshot.instances === 3,
      );
    }
    const line = await waitFor('it is redirected', async () => {
      await failure(ip, SILENT);
      return (await pair.mesh('a').accessLog()).find(({ destination }) => destination === at(ip, SILENT));
    });
    expect(line).toMatchObject({ reason: 'refused', path: 'tunnel', attempts: 1 });
  });

  test('the agent of the callee dies: a reset, not an end; strict is refused until it is back', async () => {
    const ip = pair.host('b').address('ipv4');
    const held = await Held.open(pair.host('a'), ip, PORT);
    const mesh = pair.mesh('b');
    const workers = await mesh.workers();
    mesh.running.kill('SIGKILL');
    await mesh.running.ended;
    for (const worker of workers) process.kill(worker, 'SIGKILL');
    expect(await held.ended()).toMatch(/ECONNRESET|EPIPE/);
    await pair.mesh('a').logged('the loss', ({ reason }) => reason === 'tunnel-lost');
    expect(await failure(ip, PORT)).toMatch(/ECONNRESET|EPIPE/);
    await waitFor('nobody listens any more', async () => {
      const listening = await pair.host('b').must(['ss', '-Htln', 'sport = :15008']);
      return listening.trim() === '';
    });
    // Its counts begin anew, so what it wrote down goes too.
    await rm(join(mesh.directory, 'log/access.log'), { force: true });
    await mesh.start();
    await waitFor('it is served again', async () => (await knock(pair.host('a'), ip, PORT)).echoed === 1);
  });
});
