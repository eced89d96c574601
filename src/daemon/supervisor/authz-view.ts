import { AccessControl, type Verdict } from '../../access/access-control.ts';
import type { AuthzAnswer, AuthzQuestion } from '../../admin/api.ts';
import { MeshError } from '../../model/errors.ts';
import { Policies, type PolicySet } from '../../model/policy.ts';
import {
  type NodeName,
  parseNodeName,
  parseServiceName,
  type Service,
  type ServiceName,
} from '../../model/service.ts';
import type { Snapshot } from '../../model/snapshot.ts';
import { callerNamed } from '../../policy/match/caller.ts';
import type { CallerView } from '../../policy/match/request-view.ts';
import type { PolicyOrigins } from '../../policy/reading.ts';

interface AuthzView {
  readonly node: NodeName;
  readonly snapshot: Snapshot;
  readonly policies: { readonly current: PolicySet; readonly origins: PolicyOrigins };
}

/** Whether a caller may call a service, by the policies in force here. A MeshError of source `caller` for nonsense. */
export function authzAnswer(question: AuthzQuestion, { node, snapshot, policies }: AuthzView): AuthzAnswer {
  const name = parseServiceName(question.service);
  if (name === undefined) throw wrong(`${question.service} is not a service name`);
  const { method = 'GET', path = '/' } = question;
  if (!/^[A-Z][A-Z0-9-]*$/.test(method)) throw wrong(`${method} is not a method, such as GET`);
  if (!/^(?:\/[\x21-\x7e]*|\*)$/.test(path))
    throw wrong(`${path} is not a path as it is sent, such as /orders/7`);
  const caller = callerOf(question, node);
  const service = snapshot.services.get(name);
  const { current, origins } = policies;
  const policy = new Policies(current).for(name);
  const access = new AccessControl({ policy: () => policy, decided: () => {} });
  const verdict = decide(access, question, name, service, caller);
  const origin = origins[name]?.access ?? (policy.access === undefined ? undefined : origins['*']?.access);
  const notes = notesOn(name, service, policy.access !== undefined, policy.hops === 'two');
  const common = {
    ...{ service: name, notes },
    ...(caller.program === undefined ? {} : { program: caller.program }),
    ...(caller.service === undefined ? {} : { callerService: caller.service }),
    ...(caller.node === undefined ? {} : { node: caller.node }),
    ...(origin === undefined ? {} : { origin }),
  };
  if (verdict === undefined) return { ...common, decision: 'allow', reason: `${name} has no access rules` };
  if (verdict === 'requests') {
    const reason = 'that depends on the request: say its method and its path';
    return { ...common, decision: 'requests', reason };
  }
  const { action, rule, denial } = verdict;
  const by = rule === undefined ? 'what holds otherwise allows it' : `rule ${rule} allows it`;
  return {
    ...common,
    decision: action,
    ...(rule === undefined ? {} : { rule }),
    reason: action === 'shadow-deny' ? `in shadow, and let through: ${denial}` : (denial ?? by),
  };
}

function decide(
  access: AccessControl,
  { method, path, port }: AuthzQuestion,
  name: ServiceName,
  service: Service | undefined,
  caller: CallerView,
): Verdict | 'requests' | undefined {
  const ports = new Set(service?.instances.map(({ address }) => address.port));
  const [only] = ports;
  const at = port ?? (ports.size === 1 ? only : undefined);
  // What nobody knows is taken for what the question takes it for.
  const protocol = service?.protocol ?? 'auto';
  const whole = access.preview({ name, protocol }, at, caller);
  if (whole !== 'requests' || (method === undefined && path === undefined)) return whole;
  return access.previewRequest(name, at, caller, { method: method ?? 'GET', path: path ?? '/' });
}

function callerOf({ caller, node, as }: AuthzQuestion, here: NodeName): CallerView {
  const known = callerNamed(caller);
  if (known === undefined) {
    throw wrong(`${caller} is not unit:NAME, user:NAME, container:ID, service:NAME, node:NAME or unknown`);
  }
  const on = node ?? known.node ?? here;
  const speaksFor = as ?? known.service;
  const nodeName = parseNodeName(on);
  if (nodeName === undefined) throw wrong(`${on} is not the name of a node`);
  const serviceName = speaksFor === undefined ? undefined : parseServiceName(speaksFor);
  if (speaksFor !== undefined && serviceName === undefined) throw wrong(`${speaksFor} is not a service name`);
  return { program: known.program, service: serviceName, node: nodeName, address: undefined };
}

/** What an operator should know beside the decision. */
function notesOn(name: string, service: Service | undefined, ruled: boolean, twoHops: boolean): string[] {
  if (service === undefined) return [`no registry knows ${name}`];
  if (!ruled || service.mode === 'strict') return [];
  const notes = [`${name} is permissive: who connects past the agents is asked by nobody`];
  if (twoHops) notes.push(`hops: two, so its callers on other hosts do so`);
  return notes;
}

function wrong(message: string): MeshError {
  return new MeshError('configuration', 'caller', message);
}
