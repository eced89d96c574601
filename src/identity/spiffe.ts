import { type NodeName, parseNodeName } from '../model/service.ts';

const SCHEME = 'spiffe://';
const NODE_PATH = '/node/';
/** Longest SPIFFE id (SPIFFE-ID §2.3). */
const MAX_LENGTH = 2048;

/** The id of a trust domain itself, which its authority carries: `spiffe://<trust-domain>`. */
export function authorityId(trustDomain: string): string {
  return SCHEME + trustDomain;
}

/** The id of a node: `spiffe://<trust-domain>/node/<name>`. */
export function nodeId(trustDomain: string, node: NodeName): string {
  return authorityId(trustDomain) + NODE_PATH + node;
}

/** The parts of a SPIFFE id; undefined when the text is none. `path` is empty or begins with a slash. */
export function parseSpiffeId(
  text: string,
): { readonly trustDomain: string; readonly path: string } | undefined {
  if (!text.startsWith(SCHEME) || text.length > MAX_LENGTH) return undefined;
  const rest = text.slice(SCHEME.length);
  const slash = rest.indexOf('/');
  const trustDomain = slash < 0 ? rest : rest.slice(0, slash);
  // Our trust domains have the form of node names, which is narrower than SPIFFE's (no underscores).
  if (parseNodeName(trustDomain) === undefined) return undefined;
  return { trustDomain, path: slash < 0 ? '' : rest.slice(slash) };
}

/** The node that the path of a SPIFFE id names; undefined when it names something else. */
export function nodeOfPath(path: string): NodeName | undefined {
  return path.startsWith(NODE_PATH) ? parseNodeName(path.slice(NODE_PATH.length)) : undefined;
}
