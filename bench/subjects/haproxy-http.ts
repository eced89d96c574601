import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KeyMaterial } from '../certificates.ts';
import type { Backend, Site } from '../site.ts';
import { otherServices } from './services.ts';

/*
 * HAProxy as it reads HTTP: a backend for each service, found in a map by the request's host, with kept connections to
 * each, and the headers that say who called.
 */

/** Everything of the side that callers reach; `toService` is the rest of the measured service's `server` line. */
function frontend(directory: string, capture: number, backend: Backend, toService: string): string {
  const map = join(directory, 'services.map');
  const { address, port } = backend.http;
  const others = otherServices.map(({ name, address: at }) => `${at} ${name}\n`).join('');
  writeFileSync(map, `${others}${address}:${port} measured\n`);
  const backends = otherServices.map(
    ({ name, address: at }) => `
backend ${name}
  mode http
  server one ${at}:80
`,
  );
  return `
frontend http
  mode http
  bind 127.0.0.1:${capture} backlog 4096
  option forwardfor
  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
  unique-id-header x-request-id
  http-request set-header x-forwarded-proto http
  use_backend %[req.hdr(host),map(${map})]
backend measured
  mode http
  server one ${toService}
${backends.join('')}`;
}

/** One proxy, which goes to the service in the clear. */
export function singleHttp(directory: string, capture: number, backend: Backend): string {
  return frontend(directory, capture, backend, `${backend.http.address}:${backend.http.port}`);
}

/** The near one of a pair. The far one carries bytes, as there is nothing left to find out. */
export function nearHttp(
  site: Site,
  directory: string,
  ports: { readonly capture: number; readonly tunnel: number },
  backend: Backend,
  keys: KeyMaterial,
): string {
  const tls = `ssl crt ${keys.bundle} ca-file ${keys.authority} verify required verifyhost ${keys.host}`;
  return frontend(directory, ports.capture, backend, `${site.server.address}:${ports.tunnel} ${tls}`);
}
