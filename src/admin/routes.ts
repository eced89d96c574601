import type { AdminBackend, AuthzQuestion, ResolveQuestion } from './api.ts';
import { type Answer, BadRequest, json, type Route } from './router.ts';

/** Entries of a list that are answered when no limit is asked for, and at most. */
const USUAL_LIMIT = 100;
const MOST_LIMIT = 10_000;

/** The admin API: every path of docs/operations.md, each with its method. */
export function adminRoutes(backend: AdminBackend): readonly Route[] {
  const get = (path: string, handle: () => Promise<Answer>): Route => ({
    method: 'GET',
    path,
    parameters: [],
    handle,
  });
  const list = (path: string, handle: (limit: number) => unknown): Route => ({
    method: 'GET',
    path,
    parameters: ['limit'],
    handle: async (parameters) => json(await handle(limitOf(parameters.get('limit')))),
  });
  return [
    get('/v1/status', async () => json(await backend.status())),
    readyRoute('/v1/ready', backend),
    list('/v1/services', (limit) => backend.services(limit)),
    list('/v1/connections', (limit) => backend.connections(limit)),
    list('/v1/tunnels', (limit) => backend.tunnels(limit)),
    get('/v1/registries', async () => json(await backend.registries())),
    get('/v1/rules', async () => json(await backend.rules())),
    get('/v1/policies', async () => json(await backend.policies())),
    list('/v1/observe', (limit) => backend.observe(limit)),
    get('/v1/observe/proposal', async () => json(await backend.observeProposal())),
    {
      method: 'GET',
      path: '/v1/events',
      parameters: ['after', 'limit'],
      handle: async (parameters) =>
        json(await backend.events(sequenceOf(parameters.get('after')), limitOf(parameters.get('limit')))),
    },
    {
      method: 'GET',
      path: '/v1/explain',
      parameters: ['to', 'from', 'service', 'node', 'method', 'headers'],
      handle: async (parameters) => {
        const to = parameters.get('to');
        if (to === undefined) throw new BadRequest('say where to');
        return json(await backend.explain({ ...Object.fromEntries(parameters), to }));
      },
    },
    {
      method: 'GET',
      path: '/v1/why',
      parameters: ['id', 'badly', 'limit'],
      handle: async (parameters) => {
        const id = parameters.get('id');
        if (id !== undefined) return json(await backend.why(id));
        return json(
          await backend.ended(parameters.get('badly') === 'true', limitOf(parameters.get('limit'))),
        );
      },
    },
    {
      method: 'GET',
      path: '/v1/resolve',
      parameters: ['name', 'address'],
      handle: async (parameters) => json(await backend.resolve(question(parameters))),
    },
    {
      method: 'GET',
      path: '/v1/authz',
      parameters: ['caller', 'service', 'method', 'path', 'port', 'node', 'as'],
      handle: async (parameters) => json(await backend.authz(authzQuestion(parameters))),
    },
    {
      method: 'POST',
      path: '/v1/reload',
      parameters: [],
      handle: async () => json(await backend.reload()),
    },
    {
      method: 'POST',
      path: '/v1/upgrade',
      parameters: [],
      handle: async () => {
        const { answer, proceed } = await backend.upgrade();
        return { ...json(answer), given: proceed };
      },
    },
    {
      method: 'POST',
      path: '/v1/drain',
      parameters: ['service'],
      handle: async (parameters) => json(await backend.drain(parameters.get('service'))),
    },
  ];
}

/** What is served on the network: metrics and readiness, nothing that changes or tells more. */
export function metricsRoutes(
  backend: Pick<AdminBackend, 'ready'>,
  metrics: { readonly contentType: string; text(): Promise<string> },
): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/metrics',
      parameters: [],
      handle: async () => ({ status: 200, contentType: metrics.contentType, body: await metrics.text() }),
    },
    readyRoute('/ready', backend),
  ];
}

function readyRoute(path: string, backend: Pick<AdminBackend, 'ready'>): Route {
  return {
    method: 'GET',
    path,
    parameters: [],
    handle: async () => {
      const answer = await backend.ready();
      return json(answer, answer.ready ? 200 : 503);
    },
  };
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return USUAL_LIMIT;
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MOST_LIMIT) throw new BadRequest(`limit is a number from 1 to ${MOST_LIMIT}`);
  return limit;
}

function sequenceOf(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,15}$/.test(text)) throw new BadRequest('after is the sequence number of an event');
  return Number(text);
}

function question(parameters: ReadonlyMap<string, string>): ResolveQuestion {
  const name = parameters.get('name');
  const address = parameters.get('address');
  if (name !== undefined && address === undefined) return { name };
  if (address !== undefined && name === undefined) return { address };
  throw new BadRequest('ask for a name or for an address');
}

function authzQuestion(parameters: ReadonlyMap<string, string>): AuthzQuestion {
  const { caller, service, port, ...rest } = Object.fromEntries(parameters);
  if (caller === undefined || service === undefined) throw new BadRequest('ask for a caller and a service');
  if (port === undefined) return { caller, service, ...rest };
  const number = /^\d{1,5}$/.test(port) ? Number(port) : 0;
  if (number < 1 || number > 65_535) throw new BadRequest('port is a number from 1 to 65535');
  return { caller, service, port: number, ...rest };
}
