import type { HttpOutbound } from '../../http/http-outbound.ts';
import { Detector } from '../../proxy/detector.ts';
import type { DetectionDependencies } from '../../proxy/opening-dependencies.ts';
import type { SearchDependencies } from '../../proxy/outbound-dependencies.ts';
import type { ProtocolHandler, ProtocolHandlers } from '../../proxy/protocols.ts';
import { RedisOutbound } from '../../resp/redis-outbound.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RedisMetrics } from '../../telemetry/redis-metrics.ts';

interface ProtocolStages {
  readonly log: Log;
  readonly search: SearchDependencies;
  readonly detection: DetectionDependencies;
  readonly http: HttpOutbound;
  readonly redis: RedisMetrics;
  /** What takes longer, in ms, is slow. */
  slow(): number;
}

/** Who carries which protocol, one line for each; what is not here is carried as it is (docs/protocols.md). */
export function workerProtocols(stages: ProtocolStages): ProtocolHandlers {
  const http: ProtocolHandler = (...connection) => stages.http.accept(...connection);
  const redis = makeRedis(stages);
  const detector = new Detector({ ...stages.search, ...stages.detection, http });
  return {
    http,
    redis: (...connection) => redis.accept(...connection),
    auto: (...connection) => detector.accept(...connection),
  };
}

function makeRedis({ log, search, redis, slow }: ProtocolStages): RedisOutbound {
  return new RedisOutbound({
    ...search,
    counts: (service) => redis.of(service),
    slow,
    onSlow: (command) => log.warn({ ...command }, `redis: ${command.command} was slow`),
  });
}
