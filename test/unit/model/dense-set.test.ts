import { describe, expect, test } from 'vitest';
import { DenseSet } from '../../../src/model/dense-set.ts';

const member = (name: string) => ({ name, place: -1 });

describe('DenseSet', () => {
  test('adds once, deletes once, and keeps the others', () => {
    const [a, b, c] = [member('a'), member('b'), member('c')];
    const set = new DenseSet<ReturnType<typeof member>>();
    for (const each of [a, b, c, a]) set.add(each);
    expect(set.size).toBe(3);
    set.delete(a);
    set.delete(a);
    expect(set.has(a)).toBe(false);
    expect(a.place).toBe(-1);
    expect(new Set(set.values())).toEqual(new Set([b, c]));
    set.add(a);
    set.delete(c);
    expect(new Set(set.values())).toEqual(new Set([a, b]));
  });

  test('a member of another set is none of this one', () => {
    const set = new DenseSet<ReturnType<typeof member>>();
    const other = new DenseSet<ReturnType<typeof member>>();
    const [a, b] = [member('a'), member('b')];
    set.add(a);
    other.add(b);
    set.delete(b);
    expect(set.has(b)).toBe(false);
    expect(set.size).toBe(1);
    expect(other.has(b)).toBe(true);
  });

  test('behaves like a Set under any sequence, also while it is walked', () => {
    const members = Array.from({ length: 50 }, (_, i) => member(String(i)));
    const set = new DenseSet<ReturnType<typeof member>>();
    const model = new Set<ReturnType<typeof member>>();
    let state = 12345;
    for (let step = 0; step < 20_000; step++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      const each = members[(state >>> 8) % members.length]!;
      if ((state & 0x40000000) !== 0) {
        set.add(each);
        model.add(each);
      } else {
        set.delete(each);
        model.delete(each);
      }
      expect(set.size).toBe(model.size);
      expect(set.has(each)).toBe(model.has(each));
    }
    expect(new Set(set.values())).toEqual(model);
    for (const each of set.values()) set.delete(each);
    expect(set.size).toBe(0);
    set.add(members[0]!);
    set.clear();
    expect(members[0]!.place).toBe(-1);
    expect(set.values()).toEqual([]);
  });
});
