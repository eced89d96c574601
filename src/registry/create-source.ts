import type { RegistryConfig } from '../config/schema.ts';
import { type Endpoint, parseEndpoint } from '../model/address.ts';
import { MeshError } from '../model/errors.ts';
import { ConsulSource } from './consul-source.ts';
import { DnsSource } from './dns-source.ts';
import { EtcdSource } from './etcd-source.ts';
import { FileSource } from './file-source.ts';
import { SerfSource } from './serf-source.ts';
import type { Source, SourceContext } from './source.ts';
import { zookeeperSource } from './zookeeper-source.ts';

type Factories = {
  readonly [T in RegistryConfig['type']]: (
    config: Extract<RegistryConfig, { readonly type: T }>,
    context: SourceContext,
  ) => Source;
};

/** Every kind of registry: adding one is its file and its line here (docs/registries.md shows it on an example). */
const factories: Factories = {
  consul: (config, context) =>
    new ConsulSource({
      ...config,
      address: endpointOf(config.address),
      datacenter: config.datacenter,
      zone: config.zone,
      tokenFile: config.tokenFile,
      tls: config.tls,
      context,
    }),
  dns: (config, context) => new DnsSource({ ...config, servers: config.servers.map(endpointOf), context }),
  etcd: (config, context) =>
    new EtcdSource({
      ...config,
      user: config.user,
      passwordFile: config.passwordFile,
      tls: config.tls,
      context,
    }),
  file: (config, context) => new FileSource({ ...config, context }),
  serf: (config, context) =>
    new SerfSource({
      ...config,
      address: endpointOf(config.address),
      authKeyFile: config.authKeyFile,
      context,
    }),
  zookeeper: (config, context) => zookeeperSource(config, context),
};

/** The source that a part of the configuration asks for; it does nothing before its `start`. */
export function createSource(config: RegistryConfig, context: SourceContext): Source {
  const create = factories[config.type] as (config: RegistryConfig, context: SourceContext) => Source;
  return create(config, context);
}

function endpointOf(text: string): Endpoint {
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined) throw new MeshError('configuration', 'operator', `${text} is not ADDRESS:PORT`);
  return endpoint;
}
