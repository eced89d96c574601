import { z } from 'zod';
import { parseNodeName } from '../../model/service.ts';
import { count, endpoint, ip, name, nodeName, path, port, zoneName } from '../scalars.ts';
import { duration, size } from '../units.ts';

/** Between two hosts. */
export const tunnel = z
  .strictObject({
    listen: ip.default('::').describe('Address of the tunnel listener.'),
    port: port(15008).describe('Port of the tunnel listener.'),
    handshakeTimeout: duration('5s').describe('Bound on TCP connect, TLS and WebSocket handshake together.'),
    keepaliveInterval: duration('10s').describe(
      'A tunnel without traffic is pinged this often; two missed answers end it.',
    ),
    idleTimeout: duration('5m').describe('A tunnel without streams is closed after this.'),
    maxStreams: count(4096).describe('Streams that a peer may have open on one tunnel.'),
    maxTunnels: count(4096).describe('Tunnels of one worker, both directions.'),
    initialWindow: size('256KiB').describe('Credit of a new stream; grows with the delay of the path.'),
    maxWindow: size('16MiB').describe('Most credit of one stream.'),
    sessionBuffer: size('32MiB').describe(
      'Most bytes that one tunnel holds for slow readers; past it no stream gets new credit.',
    ),
    backoffBase: duration('100ms').describe('First pause after a failed dial; doubles with full jitter.'),
    backoffMax: duration('10s').describe('Longest pause between dials of one peer.'),
  })
  .prefault({})
  .describe('Tunnels between hosts.');

/** How they know each other. */
export const identity = z
  .strictObject({
    trustDomain: name('trust domain', parseNodeName).default('mesh').describe('SPIFFE trust domain.'),
    authority: path('/etc/mesh-node/identity/ca.crt').describe(
      'PEM bundle of the authorities that are believed.',
    ),
    certificate: path('/etc/mesh-node/identity/node.crt').describe(
      'PEM certificate of this node (mesh-node ca issue).',
    ),
    key: path('/etc/mesh-node/identity/node.key').describe('PEM private key of this node; mode 0600.'),
  })
  .prefault({})
  .describe('Certificates.');

/** Another data centre. */
export const zone = z.strictObject({
  name: zoneName.describe('A zone other than this one.'),
  gateways: z
    .array(
      z.strictObject({
        node: nodeName.describe('Name in the gateway’s certificate.'),
        address: endpoint.describe('Its tunnel listener.'),
      }),
    )
    .min(1)
    .max(64)
    .describe('Zone-agents through which the zone is reached, any of them.'),
});

/** What a relay between zones takes on. */
export const zoneAgent = z
  .strictObject({
    maxHops: z.int().min(1).max(8).default(4).describe('Relays that one stream may pass.'),
    maxRelayStreams: count(4096).describe('Relayed sessions at once.'),
  })
  .prefault({})
  .describe('Settings of `mesh-node zone-agent`.');
