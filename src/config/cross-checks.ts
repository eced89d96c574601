import { parseEndpoint } from '../model/address.ts';
import type { Finding } from './explain.ts';
import type { Config } from './schema.ts';

/** XT_STRING_MAX_PATTERN_SIZE (128) without the length of the first label and the root. */
const MAX_DOMAIN = 126;

/** What the schema cannot say: keys that must fit each other. Empty when all do. */
export function crossCheck(config: Config): readonly Finding[] {
  const findings: Finding[] = [];
  const wrong = (path: readonly PropertyKey[], found: string, expected: string): void => {
    findings.push({ path, aboutKey: false, found, expected });
  };
  const ordered = (section: 'tunnel' | 'balance' | 'cache' | 'guard', low: string, high: string): void => {
    const values = config[section] as unknown as Readonly<Record<string, number>>;
    if (values[low]! > values[high]!) {
      wrong([section, low], `more than ${section}.${high}`, `at most the value of ${section}.${high}`);
    }
  };

  // The tunnel listens on all addresses by default, so no two listeners may share a port, whatever their address.
  const ports = new Map<number, string>();
  const listeners: readonly (readonly [readonly string[], number | undefined])[] = [
    [['capture', 'port'], config.capture.port],
    [['names', 'port'], config.names.port],
    [['tunnel', 'port'], config.tunnel.port],
    [['proxy', 'port'], config.proxy.enabled ? config.proxy.port : undefined],
    [['telemetry', 'metricsListen'], parseEndpoint(config.telemetry.metricsListen)?.port],
  ];
  for (const [path, port] of listeners) {
    if (port === undefined) continue;
    const other = ports.get(port);
    if (other !== undefined) wrong(path, `port ${port}, which ${other} has`, 'a port of its own');
    else ports.set(port, path.join('.'));
  }

  ordered('tunnel', 'initialWindow', 'maxWindow');
  ordered('tunnel', 'maxWindow', 'sessionBuffer');
  ordered('tunnel', 'backoffBase', 'backoffMax');
  ordered('balance', 'ejectBase', 'ejectMax');
  ordered('cache', 'freshFor', 'staleFor');
  ordered('guard', 'returnAfter', 'returnMax');
  const { heartbeatInterval, hangTimeout } = config.daemon;
  if (hangTimeout < 2 * heartbeatInterval) {
    wrong(['daemon', 'hangTimeout'], `${hangTimeout}ms`, 'at least two times daemon.heartbeatInterval');
  }

  const { window } = config.guard;
  if (window < 1000 || window > 60_000) wrong(['guard', 'window'], `${window}ms`, '1s to 1m');

  // The rule that knows queries for the domain compares at most 128 bytes: its labels with their lengths, and the root.
  const { domain } = config.names;
  if (domain.length > MAX_DOMAIN) {
    wrong(['names', 'domain'], `${domain.length} characters`, `at most ${MAX_DOMAIN}`);
  }

  const { deadAfter } = config.capture;
  if (deadAfter % 1000 !== 0 || deadAfter > 60_000) {
    wrong(['capture', 'deadAfter'], `${deadAfter}ms`, 'whole seconds, at most 60');
  }

  const zones = new Set<string>([config.node.zone]);
  config.zones.forEach((zone, i) => {
    if (zones.has(zone.name)) {
      const whose = zone.name === config.node.zone ? 'the zone of this node' : 'a zone named above';
      wrong(['zones', i, 'name'], `${zone.name}, ${whose}`, 'another zone');
    }
    zones.add(zone.name);
    const gateways = new Set<string>();
    zone.gateways.forEach((gateway, j) => {
      if (gateways.has(gateway.node)) {
        wrong(['zones', i, 'gateways', j, 'node'], `${gateway.node} again`, 'each gateway once');
      }
      gateways.add(gateway.node);
    });
  });

  const sources = new Set<string>();
  config.registries.forEach((registry, i) => {
    const where = whereabouts(registry);
    const source = `${registry.type} ${where}`;
    if (sources.has(source)) wrong(['registries', i], `${source} again`, 'each registry once');
    sources.add(source);
    if (registry.type !== 'dns' && registry.type !== 'zookeeper') return;
    const names = new Set<string>();
    registry.services.forEach(({ name }, j) => {
      if (names.has(name))
        wrong(['registries', i, 'services', j, 'name'], `${name} again`, 'each service once');
      names.add(name);
    });
  });
  return findings;
}

/** What tells a registry from others of its type: where it is asked. */
function whereabouts(registry: Config['registries'][number]): string {
  if (registry.type === 'file') return registry.directory;
  if (registry.type === 'dns') return registry.servers.join(',') || 'of the system';
  if (registry.type === 'consul') return `${registry.address} ${registry.datacenter ?? ''}`.trim();
  if (registry.type === 'zookeeper') {
    return `${registry.servers.join(',')}${registry.services.length > 0 ? '' : registry.path}`;
  }
  if (registry.type === 'etcd') return `${registry.endpoints.join(',')}${registry.prefix}`;
  return registry.address;
}
