import type { Subject } from './subject.ts';

/** No proxy at all: the floor under every figure. */
export const direct: Subject = {
  name: 'direct',
  roles: ['single', 'pair'],
  protocols: ['tcp', 'http'],
  missing: async () => undefined,
  start: async () => ({ pids: [], alive: () => true, output: () => '', stop: async () => undefined }),
};
