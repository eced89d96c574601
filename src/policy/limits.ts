/**
 * Bounds on policy documents. Generous for what people write, and there so that no directory can make the agent, or the
 * workers that are sent all of it, grow without end.
 */
export const policyLimits = Object.freeze({
  /** Bytes of one file. */
  fileBytes: 1024 * 1024,
  /** Files of the directory, and bytes of all of them. */
  files: 1024,
  bytes: 4 * 1024 * 1024,
  /** Documents of one file. */
  documents: 1024,
  /** Services that one document names. */
  servicesPerDocument: 1024,
  /** Bytes of the whole set on its way to a worker: what `services: […]` unfolds to. */
  setBytes: 8 * 1024 * 1024,
  /** Routes of one service. */
  routes: 256,
  /** Alternatives of one `match`, and names in one of its maps. */
  matches: 64,
  named: 32,
  /** Entries of the lists of methods, paths, statuses, ports, callers. */
  list: 256,
  /** Subsets among which a route divides. */
  subsets: 64,
  /** Labels of one subset. */
  labels: 16,
  rateLimits: 64,
  accessRules: 1024,
  /** Regular expressions of one section: workers compile them all with its first use, and may try all on one request. */
  regexes: 512,
  /** Characters of a text that is compared, and of a path. */
  text: 1024,
} as const);
