import type { ExplainedInstance } from '../../../admin/api.ts';
import { distanceOf, ringShares } from '../../../balance/locality.ts';
import { balanceRule } from '../../../balance/rule.ts';
import type { Config } from '../../../config/schema.ts';
import type { ServicePolicy, Subset } from '../../../model/policy.ts';
import type { Instance, NodeName, Service } from '../../../model/service.ts';
import type { Way } from '../../../proxy/way.ts';
import type { ListItem } from '../../control/listings.ts';

/** What is known where the question is asked. */
export interface InstanceSurroundings {
  readonly config: Config;
  readonly node: NodeName;
  readonly policy: ServicePolicy;
  /** What the workers know of the service's instances. */
  readonly known: readonly ListItem<'instances'>[];
  wayTo(instance: Instance): Way;
}

/** Who may be picked, how likely each ring is, and why others are not. */
export function explainInstances(
  service: Service,
  subset: Subset | undefined,
  around: InstanceSurroundings,
): { readonly text: string; readonly instances: readonly ExplainedInstance[] } {
  const { config, node, policy, known } = around;
  const rule = balanceRule(config.balance, service.balance, policy);
  const locality = { node, zone: config.node.zone, otherZones: config.zones.map(({ name }) => name) };
  const judged = service.instances.map((instance) => {
    const seen = known.filter(({ id }) => id === instance.id);
    return {
      instance,
      seen,
      against: against(instance, seen, subset),
      distance: distanceOf(instance, locality, rule.algorithm === 'ring-hash'),
    };
  });
  const present = judged.filter(({ against }) => against === undefined || against.out);
  const usable = present.filter(({ against }) => against === undefined);
  const panic =
    present.length > 0 &&
    (usable.length === 0 || usable.length * 100 < present.length * rule.ejection.panicBelow);
  const candidates = panic ? present : usable;
  const distances = [...new Set(present.map(({ distance }) => distance))].sort((a, b) => a - b);
  const within = (list: typeof judged, distance: number) =>
    list.filter((one) => one.distance === distance).length;
  const rings = distances.map((distance) => ({
    present: within(present, distance),
    usable: within(candidates, distance),
  }));
  const shares = ringShares(rings, rule.overflow);
  const shareAt = new Map(distances.map((distance, i) => [distance, shares[i]!]));
  const instances = judged.map(({ instance, seen, against, distance }): ExplainedInstance => {
    const may = candidates.some((one) => one.instance === instance);
    const { path, node: agent } = around.wayTo(instance);
    const latency = seen.find(({ latencyMs }) => latencyMs !== undefined)?.latencyMs;
    return {
      id: instance.id,
      zone: instance.zone,
      weight: instance.weight,
      path,
      ...(agent === undefined ? {} : { agent: agent.name }),
      candidate: may && shareAt.get(distance)! > 0,
      reason:
        against !== undefined && !may ? against.text : standing(distance, shareAt.get(distance) ?? 0, panic),
      active: seen.reduce((sum, { active }) => sum + active, 0),
      ...(latency === undefined ? {} : { latencyMs: latency }),
    };
  });
  const open = instances.filter(({ candidate }) => candidate).length;
  const text = `${rule.algorithm} among ${open} of ${service.instances.length} instances`;
  return { text: panic ? `${text} (panic: too few are well, so all are used)` : text, instances };
}

/** Why an instance is not picked; `out`: it is set aside, and would be used in a panic. */
function against(
  instance: Instance,
  seen: readonly ListItem<'instances'>[],
  subset: Subset | undefined,
): { readonly text: string; readonly out: boolean } | undefined {
  if (instance.draining) return { text: 'draining', out: false };
  for (const [name, value] of Object.entries(subset ?? {})) {
    if (instance.labels[name] !== value)
      return { text: `not in the subset: ${name} is not ${value}`, out: false };
  }
  const out = seen.filter(({ state }) => state !== 'healthy');
  if (out.length === 0) return undefined;
  const { state, reason } = out[0]!;
  const workers = out.length < seen.length ? ` in ${out.length} of ${seen.length} workers` : '';
  return { text: `${state}${reason === undefined ? '' : ` (${reason})`}${workers}`, out: true };
}

function standing(distance: number, share: number, panic: boolean): string {
  const where = distance === 0 ? 'on this host' : distance === 1 ? 'in this zone' : 'in another zone';
  if (share === 0) return `${where}; nearer ones take all`;
  const part = share < 1 ? `, its ring takes ${Math.round(share * 100)} %` : '';
  return `${where}${part}${panic ? ', used in panic' : ''}`;
}
