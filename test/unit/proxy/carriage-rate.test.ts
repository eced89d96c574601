import { expect, test } from 'vitest';
import type { Service } from '../../../src/model/service.ts';
import { Carriage } from '../../../src/proxy/carriage.ts';
import type { ConnectionEntry } from '../../../src/proxy/connections.ts';
import type { SearchDependencies } from '../../../src/proxy/outbound-dependencies.ts';
import type { UpstreamSearch } from '../../../src/proxy/search.ts';
import type { FoundUpstream } from '../../../src/proxy/seeker.ts';
import { MemoryChannel } from './memory-channel.ts';

const origin = { address: undefined, program: undefined };
const target = { service: { name: 'db' } as unknown as Service, instance: undefined };

/** A connection to a service whose limit is reached; nothing else may be asked for. */
function limited() {
  const client = new MemoryChannel();
  const ends: string[] = [];
  const entry = { finish: (reason: string, detail: string) => ends.push(`${reason}: ${detail}`) };
  const deps = { overRate: () => 'logins' } as unknown as SearchDependencies;
  return { client, ends, carriage: new Carriage(client, entry as unknown as ConnectionEntry, deps) };
}

test('a connection over a rate limit is reset at once, and nobody is asked', () => {
  const { client, ends, carriage } = limited();
  carriage.toward(target, origin);
  expect(ends).toEqual(['overload: rate limit: logins']);
  expect(client.resetWith).toBe('overload');
});

test('what was opened while it was found out is let go', () => {
  const begun = limited();
  let cancelled = 0;
  begun.carriage.follow({ cancel: () => cancelled++ } as unknown as UpstreamSearch, undefined);
  expect([cancelled, begun.ends.length]).toEqual([1, 1]);
  const open = limited();
  const channel = new MemoryChannel();
  let finished = 0;
  open.carriage.along({ channel, token: { finished: () => finished++ } } as unknown as FoundUpstream);
  expect([channel.resetWith, finished, open.ends.length]).toEqual(['none', 1, 1]);
});
