import type { NodeName, ServiceName } from '../../../../src/model/service.ts';
import { type CallerView, HeadView } from '../../../../src/policy/match/request-view.ts';

/** A caller that is a unit of a host, or what `of` says. */
export function callerView(of: { program?: string; service?: string; node?: string } = {}): CallerView {
  return {
    program: of.program ?? 'unit:front.service',
    service: of.service as ServiceName | undefined,
    node: (of.node ?? 'web1') as NodeName,
    address: '10.0.0.9',
  };
}

/** A request as matchers see it; `fields` by lower-case name. */
export function requestView(
  method: string,
  path: string,
  fields: Readonly<Record<string, string>> = {},
  caller: Parameters<typeof callerView>[0] = {},
): HeadView {
  const head = {
    method,
    path,
    authority: fields['host'] ?? '',
    fields: { joined: (name: string) => fields[name] },
  };
  return new HeadView(head, callerView(caller));
}
