import { AccessControl } from '../../../access/access-control.ts';
import type { AccessRequest } from '../../../access/rules.ts';
import type { ExplainAnswer, ExplainQuestion, ExplainStep } from '../../../admin/api.ts';
import { coverage } from '../../../capture/proposal.ts';
import type { Config } from '../../../config/schema.ts';
import { type EndpointKey, endpointKey, type OriginalDestination } from '../../../model/address.ts';
import { Policies, type PolicySet } from '../../../model/policy.ts';
import type { Instance, NodeName, Service, ServiceName } from '../../../model/service.ts';
import type { Snapshot } from '../../../model/snapshot.ts';
import type { CallerView, RequestView } from '../../../policy/match/request-view.ts';
import type { PolicyOrigins } from '../../../policy/reading.ts';
import { ExemptCallers, type ExemptNames } from '../../../proxy/exempt-callers.ts';
import { wayTo } from '../../../proxy/way.ts';
import { NamedRoutes } from '../../../route/by-name.ts';
import { lookup } from '../../../route/lookup.ts';
import type { ListItem } from '../../control/listings.ts';
import { ownPorts } from '../../succession/listeners.ts';
import { OwnListenerSet } from '../../worker/own-listeners.ts';
import { allowedDestinations, type ObserveView } from '../observe-view.ts';
import { explainInstances } from './instance-steps.ts';
import { askedOf } from './question.ts';
import { requestSteps, subsetText } from './request-steps.ts';

/** What this host goes by. */
export interface ExplainView extends Pick<ObserveView, 'config' | 'exempt'> {
  readonly node: NodeName;
  readonly config: Config;
  readonly snapshot: Snapshot;
  readonly policies: PolicySet;
  readonly origins: PolicyOrigins;
  readonly callers: ExemptNames;
  /** State of interception, and why new connections go direct although the agent runs. */
  readonly interception: { readonly state: string; readonly suspensions: readonly string[] };
  readonly outages: readonly { readonly service: string; readonly instance?: string }[];
  /** What the workers know of the instances of a service. */
  instancesOf(service: ServiceName): Promise<readonly ListItem<'instances'>[]>;
}

/** Where a destination leads. */
type Meaning =
  | {
      readonly kind: 'service';
      readonly service: Service;
      readonly only: Instance | undefined;
      readonly text: string;
    }
  | { readonly kind: 'end'; readonly outcome: ExplainAnswer['outcome']; readonly text: string };

/** Each decision that would be taken, in order. Throws a MeshError of source `caller` for a question that is none. */
export async function explain(question: ExplainQuestion, view: ExplainView): Promise<ExplainAnswer> {
  const { config, node } = view;
  const asked = askedOf(question, node, config.node.callAs as ServiceName | undefined);
  const steps: ExplainStep[] = [];
  const { caller } = asked;
  const who = [
    caller.program ?? 'a program',
    caller.service && `as service ${caller.service}`,
    `on ${caller.node}`,
  ];
  steps.push({ title: 'caller', text: who.filter((part) => part !== undefined).join(' '), details: [] });
  steps.push(interceptionStep(view, 'ip' in asked.to ? endpointKey(asked.to) : undefined, caller.program));
  const meaning = meaningOf(asked.to, asked.request, view);
  steps.push({ title: 'destination', text: meaning.text, details: [] });
  if (meaning.kind === 'end') return { outcome: meaning.outcome, steps, instances: [] };
  const { service, only } = meaning;
  const policy = new Policies(view.policies).for(service.name);
  steps.push(serviceStep(service, policy, view));
  const read = service.protocol === 'http' || service.protocol === 'auto' ? asked.request : undefined;
  const outcome = read === undefined ? undefined : requestSteps(policy, read);
  if (outcome !== undefined) steps.push(...outcome.steps);
  if (outcome?.answered === true) return { outcome: 'answered', steps, instances: [] };
  const known = await view.instancesOf(service.name);
  const chosen = only === undefined ? service : { ...service, instances: [only] };
  const { text, instances } = explainInstances(chosen, outcome?.subset, {
    ...{ config, node, policy, known },
    wayTo: (instance) =>
      wayTo(service, instance, {
        ...{ node, zone: config.node.zone, snapshot: view.snapshot, policy },
        reaches: (zone) => config.zones.some(({ name, gateways }) => name === zone && gateways.length > 0),
      }),
  });
  const subset = outcome?.subset === undefined ? '' : `, of ${subsetText(outcome.subset)}`;
  const down = view.outages.some((one) => one.service === service.name && one.instance === undefined);
  steps.push({
    title: 'instance',
    text: only === undefined ? text + subset : `${only.id}, and no other: it was called by its own address`,
    details: down ? ['nobody could reach any of them: connect() is refused until a probe does'] : [],
  });
  const request = asked.request && {
    method: asked.request.method,
    path: outcome?.path ?? asked.request.rawPath,
  };
  const { step, denied } = accessStep(service, chosen, caller, request, view);
  steps.push(step);
  // Who connects past the agents is asked by nobody.
  const possible = instances.some(
    ({ candidate, path }) => candidate && path !== 'none' && !(denied && path !== 'direct'),
  );
  return { outcome: possible ? 'service' : 'refused', steps, instances };
}

function meaningOf(
  to: ReturnType<typeof askedOf>['to'],
  request: RequestView | undefined,
  { snapshot, config }: ExplainView,
): Meaning {
  const own = new OwnListenerSet([config.capture.port, ...ownPorts(config)]);
  const names = new NamedRoutes(own, config.names.domain);
  if (!('ip' in to)) {
    const route = names.find(snapshot, to.host, to.port, to.usual);
    switch (route.kind) {
      case 'service':
        return found(route.service, undefined, `${to.host} is service ${route.service.name}`);
      case 'instance':
        return found(route.service, route.instance, `${to.host} is instance ${route.instance.id}`);
      case 'address':
        return end('passthrough', 'nobody claims this address: it goes on untouched');
      case 'unknown':
        return end(
          'passthrough',
          `no service is called ${route.host}: DNS says where it leads, as without the mesh`,
        );
      case 'refuse':
        return end('refused', `${route.reason}: ${route.detail}`);
    }
  }
  const decision = lookup(snapshot, to as OriginalDestination, own);
  switch (decision.kind) {
    case 'service':
      return found(decision.service, undefined, `the address means service ${decision.service.name}`);
    case 'instance':
      return found(
        decision.service,
        decision.instance,
        `the address of ${decision.instance.id} of ${decision.service.name}`,
      );
    case 'passthrough':
      return end('passthrough', 'nobody claims this address: it goes on untouched');
    case 'refuse':
      return end('refused', `${decision.reason}: it is this agent itself`);
    case 'shared': {
      const all = decision.services.map(({ name }) => name).join(', ');
      const host = request?.header('host') ?? request?.authority;
      const named =
        host === undefined ? undefined : names.find(snapshot, host.replace(/:\d+$/, ''), undefined, 80);
      const service =
        named?.kind === 'service'
          ? decision.services.find(({ name }) => name === named.service.name)
          : undefined;
      if (service !== undefined)
        return found(service, undefined, `${all} share the address; Host says ${service.name}`);
      if (decision.strict)
        return end(
          'refused',
          `${all} share the address, one of them is strict, and no name tells which is meant`,
        );
      return end(
        'passthrough',
        `${all} share the address, and no name tells which is meant: it goes on untouched`,
      );
    }
  }
}

function found(service: Service, only: Instance | undefined, text: string): Meaning {
  return { kind: 'service', service, only, text };
}

function end(outcome: ExplainAnswer['outcome'], text: string): Meaning {
  return { kind: 'end', outcome, text };
}

function interceptionStep(
  view: ExplainView,
  key: EndpointKey | undefined,
  program: string | undefined,
): ExplainStep {
  const { config, interception, callers } = view;
  const details: string[] = [];
  if (key !== undefined && coverage(allowedDestinations(view))(key)) {
    details.push('the allow-list, or a protected destination, covers it: it is never touched');
  }
  const exempt = new ExemptCallers();
  exempt.configure(callers);
  const [kind, name] = program?.split(':', 2) ?? [];
  if (kind !== undefined && exempt.includes({ caller: { [kind]: name }, naming: undefined }) === true) {
    details.push('the allow-list names the caller: it is never touched');
  }
  for (const suspension of interception.suspensions) details.push(`new connections go direct: ${suspension}`);
  return { title: 'interception', text: `mode ${config.capture.mode}, ${interception.state}`, details };
}

function serviceStep(service: Service, policy: object, { origins }: ExplainView): ExplainStep {
  const { name, protocol, mode } = service;
  const own = origins[name] ?? {};
  const details = Object.keys(policy).map(
    (section) =>
      `${section}: ${own[section as keyof typeof own] ?? origins['*']?.[section as keyof typeof own] ?? '-'}`,
  );
  const text = `${name}, protocol ${protocol}, ${mode}; ${details.length === 0 ? 'no policy' : 'policy by section'}`;
  return { title: 'service', text, details };
}

/** At the agent of the instance, which has policies of its own; what this host's say is shown. */
function accessStep(
  service: Service,
  { instances }: Pick<Service, 'instances'>,
  caller: CallerView,
  request: AccessRequest | undefined,
  { policies }: ExplainView,
): { readonly step: ExplainStep; readonly denied: boolean } {
  const all = new Policies(policies);
  const control = new AccessControl({ policy: (name) => all.for(name), decided: () => {} });
  const port = instances[0]?.address.port;
  const whole = control.preview(service, port, caller);
  const verdict =
    whole === 'requests' ? request && control.previewRequest(service.name, port, caller, request) : whole;
  if (verdict === undefined) {
    const text = whole === 'requests' ? 'decided for each request' : 'anybody may call';
    return { step: { title: 'access', text, details: [] }, denied: false };
  }
  const by = verdict.rule === undefined ? 'no rule matches' : `by rule ${verdict.rule}`;
  const text = `${verdict.action} (${by}), as far as the policies of this host say`;
  return { step: { title: 'access', text, details: [] }, denied: verdict.action === 'deny' };
}
