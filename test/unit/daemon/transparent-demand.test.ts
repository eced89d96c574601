import { beforeEach, expect, it } from 'vitest';
import { TransparentDemand } from '../../../src/daemon/supervisor/transparent-demand.ts';
import type { NodeName, Service, ServiceName } from '../../../src/model/service.ts';
import { applyDelta, emptySnapshot, type SnapshotDelta } from '../../../src/model/snapshot.ts';
import type { Catalogue } from '../../../src/registry/catalogue.ts';
import { service } from '../naming/sample-names.ts';

const HERE = 'here' as NodeName;

/** As much of a catalogue as is followed. */
class FakeCatalogue {
  snapshot = emptySnapshot;
  readonly #listeners = new Set<{ delta(delta: SnapshotDelta): void }>();

  listen(listener: { delta(delta: SnapshotDelta): void }): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  publish(services: readonly Service[], removed: readonly string[] = []): void {
    const removedServices = removed as ServiceName[];
    const delta = { base: this.snapshot.version, services, removedServices, nodes: [], removedNodes: [] };
    this.snapshot = applyDelta(this.snapshot, delta);
    for (const listener of this.#listeners) listener.delta(delta);
  }
}

/** A service with one instance, on this node or that. */
function on(node: string, source: 'node' | 'transparent', name = 'web'): Service {
  const made = service(name, ['10.0.0.1:80'], { source });
  return { ...made, instances: made.instances.map((one) => ({ ...one, node: node as NodeName })) };
}

let log: string[];
let fails: boolean;
let demand: TransparentDemand;
let catalogue: FakeCatalogue;
const follow = () => demand.follow(catalogue as unknown as Catalogue);

beforeEach(() => {
  log = [];
  fails = false;
  catalogue = new FakeCatalogue();
  demand = new TransparentDemand(
    HERE,
    () => {
      if (fails) throw new Error('no');
      log.push('serve');
      return { close: () => log.push('close') };
    },
    { error: () => log.push('error') } as never,
  );
});

it('serves only while a service with an instance here wants it', () => {
  follow();
  catalogue.publish([on('here', 'node')]);
  catalogue.publish([on('elsewhere', 'transparent')]);
  expect(log).toEqual([]);
  catalogue.publish([on('here', 'transparent')]);
  catalogue.publish([on('here', 'transparent', 'api')]);
  expect(log).toEqual(['serve']);
  catalogue.publish([on('here', 'node')]);
  expect(log).toEqual(['serve']);
  catalogue.publish([], ['api']);
  expect(log).toEqual(['serve', 'close']);
  catalogue.publish([on('here', 'transparent')]);
  catalogue.publish([on('elsewhere', 'transparent')]);
  expect(log).toEqual(['serve', 'close', 'serve', 'close']);
});

it('takes what is known already, and goes over to another catalogue', () => {
  catalogue.publish([on('here', 'transparent')]);
  follow();
  expect(log).toEqual(['serve']);
  const before = catalogue;
  catalogue = new FakeCatalogue();
  catalogue.publish([on('here', 'transparent', 'api')]);
  follow();
  before.publish([], ['web']);
  expect(log).toEqual(['serve']);
  catalogue.publish([], ['api']);
  expect(log).toEqual(['serve', 'close']);
});

it('says that it cannot serve, and tries again with the next change', () => {
  fails = true;
  catalogue.publish([on('here', 'transparent')]);
  follow();
  expect(log).toEqual(['error']);
  fails = false;
  catalogue.publish([on('elsewhere', 'node', 'other')]);
  expect(log).toEqual(['error', 'serve']);
  demand.close();
  catalogue.publish([on('here', 'transparent', 'api')]);
  expect(log).toEqual(['error', 'serve', 'close']);
});
