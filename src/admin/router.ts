import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, MeshError, reasonOf } from '../model/errors.ts';
import type { ErrorAnswer } from './api.ts';

/** Longest that a handler may take; the caller is told then, and the work goes on without it. */
const HANDLER_MS = 30_000;
/** Most bytes of a request's body. No request needs one today, so it is read away and not kept. */
const MOST_BODY_BYTES = 64 * 1024;

/** What a handler answers with. */
export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /** Called once the answer was given, or whoever asked is gone. */
  readonly given?: () => void;
}

/** One method of one path. */
export interface Route {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** Query parameters that it knows; any other one is refused. */
  readonly parameters: readonly string[];
  handle(parameters: ReadonlyMap<string, string>): Promise<Answer>;
}

/** An answer in JSON. */
export function json(body: unknown, status = 200): Answer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(body)}\n` };
}

function failure(status: number, code: string, message: string): Answer {
  const body: ErrorAnswer = { error: { code, message } };
  return json(body, status);
}

/** A request that cannot be understood: 400, with what was expected. */
export class BadRequest extends Error {}

const STATUS: Partial<Record<ErrorCode, number>> = {
  configuration: 422,
  'no-service': 404,
  'no-instance': 404,
  denied: 403,
  overload: 503,
  draining: 503,
  unreachable: 503,
  timeout: 504,
};

/** A request listener for these routes and nothing else. */
export function router(
  routes: readonly Route[],
): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    let received = 0;
    request.on('data', (chunk: Buffer) => {
      received += chunk.length;
      if (received > MOST_BODY_BYTES) request.destroy();
    });
    // A caller that went away in the middle: nobody is there to be told.
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    answer(routes, request).then(
      (result) => send(request, response, result),
      (error: unknown) => send(request, response, ofError(error)),
    );
  };
}

async function answer(routes: readonly Route[], request: IncomingMessage): Promise<Answer> {
  const target = request.url ?? '';
  const at = target.indexOf('?');
  const path = at === -1 ? target : target.slice(0, at);
  const here = routes.filter((route) => route.path === path);
  if (here.length === 0) return failure(404, 'no-such-path', `there is no ${path.slice(0, 200)}`);
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const route = here.find((one) => one.method === method);
  if (route === undefined) {
    const allowed = here.map((one) => one.method).join(', ');
    return failure(405, 'no-such-method', `${path} answers to ${allowed}`);
  }
  const parameters = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(at === -1 ? '' : target.slice(at + 1))) {
    if (!route.parameters.includes(name)) throw new BadRequest(`${path} has no parameter ${name}`);
    if (parameters.has(name)) throw new BadRequest(`${name} is given twice`);
    parameters.set(name, value);
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Answer>((resolve) => {
    timer = setTimeout(
      () => resolve(failure(504, 'timeout', `no answer within ${HANDLER_MS / 1000} s`)),
      HANDLER_MS,
    );
  });
  return Promise.race([route.handle(parameters), late]).finally(() => clearTimeout(timer));
}

function ofError(error: unknown): Answer {
  if (error instanceof BadRequest) return failure(400, 'bad-request', error.message);
  if (error instanceof MeshError) return failure(STATUS[error.code] ?? 500, error.code, error.message);
  return failure(500, 'internal', reasonOf(error));
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, contentType, body, given }: Answer,
): void {
  if (given !== undefined) {
    if (response.destroyed) given();
    else response.once('close', given);
  }
  if (response.destroyed) return;
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}
