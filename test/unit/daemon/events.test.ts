import { describe, expect, test } from 'vitest';
import { EventLog, MAX_EVENT_TEXT } from '../../../src/daemon/events.ts';

describe('events', () => {
  test('those behind a sequence number, in order, the newest of them', () => {
    const log = new EventLog();
    expect(log.since(0, 10)).toEqual([]);
    for (let i = 1; i <= 5; i++) log.add('worker-0', { kind: 'worker', text: `event ${i}` });
    const texts = (after: number, limit: number) => log.since(after, limit).map(({ text }) => text);
    expect(texts(0, 10)).toEqual([1, 2, 3, 4, 5].map((i) => `event ${i}`));
    expect(texts(3, 10)).toEqual(['event 4', 'event 5']);
    expect(texts(0, 2)).toEqual(['event 4', 'event 5']);
    expect(texts(5, 10)).toEqual([]);
    // The reader knows an agent that was there before this one.
    expect(texts(99, 10)).toHaveLength(5);
  });

  test('the oldest give way, and none is long', () => {
    const log = new EventLog();
    for (let i = 1; i <= 2500; i++)
      log.add('supervisor', { kind: 'policy', text: `${i} ${'x'.repeat(9999)}` });
    const events = log.since(0, 10_000);
    expect(events).toHaveLength(1000);
    expect(events.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 1000 }, (_, i) => 1501 + i));
    expect(events.every(({ text }) => text.length === MAX_EVENT_TEXT)).toBe(true);
  });
});
