import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PersistentMap } from '../../../src/model/persistent-map.ts';

const changes = fc.array(
  fc.tuple(fc.stringMatching(/^[a-c]{0,3}$/), fc.option(fc.nat(), { nil: undefined })),
  { maxLength: 30 },
);

test('is an ordinary map whose every version stays as it was', () => {
  fc.assert(
    fc.property(fc.array(changes, { maxLength: 8 }), (batches) => {
      const expected = new Map<string, number>();
      let map = PersistentMap.empty<string, number>();
      const versions: [PersistentMap<string, number>, Map<string, number>][] = [];
      for (const batch of batches) {
        map = map.with(batch);
        for (const [key, value] of batch) {
          if (value === undefined) expected.delete(key);
          else expected.set(key, value);
        }
        versions.push([map, new Map(expected)]);
      }
      for (const [version, content] of versions) {
        expect(version.size).toBe(content.size);
        expect(new Map(version)).toEqual(content);
        expect([...version.values()].sort()).toEqual([...content.values()].sort());
        for (const [key, value] of content) expect(version.get(key)).toBe(value);
        expect(version.has('never')).toBe(false);
        // The way from any version to any other, forwards and back.
        for (const [before, had] of versions) {
          const made = new Map(had);
          for (const [key, value] of version.changesSince(before)) {
            expect(had.get(key)).not.toBe(value);
            if (value === undefined) made.delete(key);
            else made.set(key, value);
          }
          expect(made).toEqual(content);
        }
      }
    }),
    { numRuns: 1000 },
  );
});
