import type { ResolveAnswer, ResolveQuestion } from '../../admin/api.ts';
import type { Config } from '../../config/schema.ts';
import { type OriginalDestination, parseEndpoint } from '../../model/address.ts';
import { MeshError } from '../../model/errors.ts';
import { parseServiceName } from '../../model/service.ts';
import { lookup } from '../../route/lookup.ts';
import { ownPorts } from '../succession/listeners.ts';
import { OwnListenerSet } from '../worker/own-listeners.ts';
import type { Knowledge } from './knowledge.ts';

/** What a name or an address means to this host; a MeshError of source `caller` when it is neither. */
export async function resolveAnswer(
  question: ResolveQuestion,
  knowledge: Knowledge,
  config: Config,
): Promise<ResolveAnswer> {
  return 'name' in question
    ? resolveName(question.name, knowledge)
    : resolveAddress(question.address, knowledge, config);
}

async function resolveName(text: string, knowledge: Knowledge): Promise<ResolveAnswer> {
  const name = parseServiceName(text);
  if (name === undefined) throw new MeshError('configuration', 'caller', `${text} is not a service name`);
  const { snapshot } = knowledge.catalogue;
  const service = snapshot.services.get(name);
  if (service !== undefined) {
    const from = knowledge.catalogue.provenance(name);
    const age = from === undefined ? '' : `, confirmed ${seconds(Date.now() - from.confirmedAt)} s ago`;
    return {
      verdict: 'service',
      reason: `${from?.source ?? 'catalogue'} says so (${from?.origin ?? 'live'}${age})`,
      services: [service],
    };
  }
  const byHost = Array.from(snapshot.services.values()).filter(({ hosts }) => hosts.includes(text));
  if (byHost.length > 0) return { verdict: 'service', reason: 'declared as a host of it', services: byHost };
  const { value, tier, age } = await knowledge.ask({ kind: 'service', name });
  if (value === undefined) return { verdict: 'unknown', reason: 'no registry knows it', services: [] };
  return { verdict: 'service', reason: `answered by ${tier}, ${seconds(age)} s old`, services: [value] };
}

function resolveAddress(text: string, knowledge: Knowledge, config: Config): ResolveAnswer {
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined) throw new MeshError('configuration', 'caller', `${text} is not ADDRESS:PORT`);
  const own = new OwnListenerSet([config.capture.port, ...ownPorts(config)]);
  const decision = lookup(knowledge.catalogue.snapshot, endpoint as OriginalDestination, own);
  switch (decision.kind) {
    case 'service':
      return { verdict: 'service', reason: 'the address means the service', services: [decision.service] };
    case 'instance': {
      const { service, instance } = decision;
      return {
        verdict: 'instance',
        reason: `the address of instance ${instance.id}`,
        services: [{ ...service, instances: [instance] }],
      };
    }
    case 'passthrough':
      return { verdict: 'passthrough', reason: 'nobody knows the address', services: [] };
    case 'shared':
      return {
        verdict: decision.strict ? 'unknown' : 'passthrough',
        reason: `several services share the address${decision.strict ? ', and one is strict' : ''}`,
        services: decision.services,
      };
    case 'refuse':
      return { verdict: 'unknown', reason: `refused: ${decision.reason}`, services: [] };
  }
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds / 1000);
}
