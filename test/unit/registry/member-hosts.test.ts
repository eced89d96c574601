import { expect, test } from 'vitest';
import { MemberHosts } from '../../../src/registry/member-hosts.ts';

function notFound(): Error {
  return Object.assign(new Error('getaddrinfo ENOTFOUND'), { code: 'ENOTFOUND' });
}

test('addresses are themselves; names are asked for, two at a time, each once', async () => {
  let under = 0;
  let most = 0;
  const asked: string[] = [];
  const changed: string[] = [];
  const hosts = new MemberHosts(
    (name) => changed.push(name),
    async (name) => {
      asked.push(name);
      most = Math.max(most, ++under);
      await new Promise(setImmediate);
      under--;
      return '10.0.0.1';
    },
  );
  expect(hosts.ipOf('fd00::1')).toBe('fd00::1');
  hosts.want(['10.0.0.7', 'a', 'b', 'c', 'd', 'a']);
  hosts.want(['a']);
  expect([hosts.settled, hosts.ipOf('a')]).toEqual([false, undefined]);
  await hosts.idle();
  expect(most).toBe(2);
  expect(asked).toEqual(['a', 'b', 'c', 'd']);
  expect(changed).toEqual(asked);
  expect([hosts.settled, hosts.ipOf('a')]).toEqual([true, '10.0.0.1']);
});

test('the last address stays while there is no other; a name that is no longer wanted is forgotten', async () => {
  let answer: () => Promise<string> = () => Promise.resolve('10.0.0.1');
  const changed: string[] = [];
  const hosts = new MemberHosts(
    (name) => changed.push(name),
    () => answer(),
  );
  hosts.want(['a']);
  await hosts.idle();
  answer = () => Promise.reject(notFound());
  hosts.renew(new Set(['a']));
  await hosts.idle();
  expect(hosts.ipOf('a')).toBe('10.0.0.1');
  answer = () => Promise.resolve('10.0.0.2');
  hosts.renew(new Set(['a']));
  await hosts.idle();
  expect(hosts.ipOf('a')).toBe('10.0.0.2');
  expect(changed).toEqual(['a', 'a']);
  hosts.renew(new Set());
  expect(hosts.ipOf('a')).toBeUndefined();
});

test('"no such name" is an answer, a resolver that fails is none', async () => {
  let error = new Error('EAI_AGAIN');
  const hosts = new MemberHosts(
    () => undefined,
    () => Promise.reject(error),
  );
  hosts.want(['a']);
  await hosts.idle();
  expect(hosts.settled).toBe(false);
  error = notFound();
  hosts.renew(new Set(['a']));
  await hosts.idle();
  expect([hosts.settled, hosts.ipOf('a')]).toEqual([true, undefined]);
});

test('names beyond the bound are left out; after its stop nothing is asked', async () => {
  const asked: string[] = [];
  const hosts = new MemberHosts(
    () => undefined,
    (name) => {
      asked.push(name);
      return Promise.resolve('10.0.0.1');
    },
  );
  hosts.want(Array.from({ length: 10_010 }, (_, i) => `h${i}`));
  await hosts.idle();
  expect(asked).toHaveLength(10_000);
  hosts.stop();
  hosts.want([]);
  expect(asked).toHaveLength(10_000);
});

test('a name that hangs takes one place, however often it is asked for again', async () => {
  const hosts = new MemberHosts(
    () => undefined,
    (name) => (name === 'hangs' ? new Promise(() => undefined) : Promise.resolve('10.0.0.1')),
  );
  hosts.want(['hangs']);
  hosts.renew(new Set(['hangs']));
  hosts.renew(new Set(['hangs', 'a']));
  await expect.poll(() => hosts.ipOf('a')).toBe('10.0.0.1');
});
