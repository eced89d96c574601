import type { Endpoint } from '../model/address.ts';
import type { Instance, MeshNode, Service } from '../model/service.ts';

/*
 * One form for equal content, so that a registry that says the same thing in another order causes no delta:
 * instances sorted by id, names and addresses in the order in which they were given.
 */

const NONE: readonly never[] = [];

/** The service with its instances in order of their ids. The same object when they are already. */
export function canonicalService(service: Service): Service {
  const { instances } = service;
  for (let i = 1; i < instances.length; i++) {
    if (instances[i - 1]!.id > instances[i]!.id) {
      return {
        ...service,
        instances: instances.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)),
      };
    }
  }
  return service;
}

/** True when two services in canonical form say the same. */
export function sameService(a: Service, b: Service): boolean {
  return (
    a === b ||
    (a.name === b.name &&
      a.protocol === b.protocol &&
      a.mode === b.mode &&
      a.interchangeable === b.interchangeable &&
      a.balance === b.balance &&
      same(a.hosts, b.hosts, (x, y) => x === y) &&
      (a.source ?? 'node') === (b.source ?? 'node') &&
      same(a.ports ?? NONE, b.ports ?? NONE, (x, y) => x === y) &&
      same(a.virtual ?? NONE, b.virtual ?? NONE, (x, y) => x === y) &&
      same(a.resolved ?? NONE, b.resolved ?? NONE, sameEndpoint) &&
      same(a.addresses, b.addresses, sameEndpoint) &&
      same(a.instances, b.instances, sameInstance))
  );
}

/** True when two nodes say the same. */
export function sameNode(a: MeshNode, b: MeshNode): boolean {
  return a === b || (a.name === b.name && a.zone === b.zone && sameEndpoint(a.tunnel, b.tunnel));
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.ip === b.ip;
}

function sameInstance(a: Instance, b: Instance): boolean {
  return (
    a === b ||
    (a.id === b.id &&
      sameEndpoint(a.address, b.address) &&
      a.node === b.node &&
      a.zone === b.zone &&
      a.weight === b.weight &&
      a.draining === b.draining &&
      sameLabels(a.labels, b.labels))
  );
}

function sameLabels(a: Instance['labels'], b: Instance['labels']): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}

function same<T>(a: readonly T[], b: readonly T[], equal: (x: T, y: T) => boolean): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!equal(a[i]!, b[i]!)) return false;
  return true;
}
