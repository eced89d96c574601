/**
 * Bounds on what one registry can make us hold. Generous (10,000 services with 100,000 instances are an ordinary
 * large installation), and there so that a broken or hostile registry costs its own entries and not the agent.
 */
export const registryLimits = Object.freeze({
  /** Services of one source; further ones are not taken. */
  services: 50_000,
  /** Instances of one source, over all its services; a service that would pass it is not taken. */
  instances: 500_000,
  /** Mesh nodes of one source; further ones are not taken. */
  nodes: 50_000,
  /** Instances of one service. */
  instancesPerService: 20_000,
  /** Names, and addresses, that one service claims beside its own. */
  aliasesPerService: 256,
  /** Labels of one instance. */
  labels: 64,
  /** Characters of a label's key. */
  labelKey: 128,
  /** Characters of a label's value. */
  labelValue: 1024,
} as const);
