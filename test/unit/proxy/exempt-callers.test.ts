import { expect, it } from 'vitest';
import { identityOf, Naming, unknownIdentity } from '../../../src/caller/identity.ts';
import { ExemptCallers } from '../../../src/proxy/exempt-callers.ts';

it('knows users and units by name, and waits for a name only where it decides', () => {
  const exempt = new ExemptCallers();
  const naming = new Naming(unknownIdentity, 'cgroup:7');
  const backup = identityOf({ unit: 'backup.service', user: 'root' }).caller;
  expect(exempt.includes({ caller: backup, naming })).toBe(false);
  exempt.configure({ users: ['late'], units: ['backup.service'] });
  expect(exempt.includes({ caller: backup, naming: undefined })).toBe(true);
  expect(exempt.includes({ caller: { user: 'late' }, naming })).toBe(true);
  expect(
    exempt.includes({ caller: { user: 'root' }, naming }),
    'its unit is being looked for',
  ).toBeUndefined();
  expect(exempt.includes({ caller: { user: 'root' }, naming: undefined })).toBe(false);
  expect(exempt.includes({ caller: undefined, naming: undefined })).toBe(false);
  exempt.configure({ users: ['late'], units: [] });
  expect(exempt.includes({ caller: { user: 'root' }, naming })).toBe(false);
});
