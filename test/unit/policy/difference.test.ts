import { describe, expect, it } from 'vitest';
import { differences } from '../../../src/policy/difference.ts';
import { withUnits } from '../../../src/policy/written.ts';
import { content } from './files.ts';

const between = (before: string, after: string) =>
  differences(content(before).policies, content(after).policies).map(
    ({ service, section, kind, values }) => ({ at: `${service}.${section} ${kind}`, values }),
  );

describe('differences', () => {
  it('are none between the same', () => {
    const text = 'service: web\nretries: 1\nroutes: [{name: a}, {name: b}]';
    expect(between(text, `# other text\n${text}`)).toEqual([]);
  });

  it('tell sections that come and go, `*` first', () => {
    const none = 'service: other\nhops: two';
    const more = `service: web\ntimeouts: {request: 1s}\n---\nservice: '*'\nhops: two\n---\n${none}`;
    expect(between(none, more)).toEqual([
      { at: '*.hops added', values: [{ path: '', after: 'two' }] },
      { at: 'web.timeouts added', values: [{ path: '', after: { request: 1000 } }] },
    ]);
    expect(between(more, none).map(({ at }) => at)).toEqual(['*.hops removed', 'web.timeouts removed']);
  });

  it('tell values by the names of what they stand in', () => {
    const canary = (weight: number, more = '') =>
      `service: web\nroutes:\n- {name: canary, to: [{subset: {v: "2"}, weight: ${weight}}, {weight: 90}]${more}}\n- {name: b}`;
    expect(between(canary(10), canary(50, ', timeouts: {request: 2s}'))).toEqual([
      {
        at: 'web.routes changed',
        values: [
          { path: '[canary].to[0].weight', before: 10, after: 50 },
          { path: '[canary].timeouts', after: { request: 2000 } },
        ],
      },
    ]);
  });

  it('tell another order, which is another policy', () => {
    expect(
      between('service: web\nroutes: [{name: a}, {name: b}]', 'service: web\nroutes: [{name: b}, {name: a}]'),
    ).toEqual([
      {
        at: 'web.routes changed',
        values: [{ path: 'order', before: ['[a]', '[b]'], after: ['[b]', '[a]'] }],
      },
    ]);
  });

  it('tell lists of plain values as they are', () => {
    expect(
      between('service: web\nretries: {statuses: 503}', 'service: web\nretries: {statuses: [503, 502]}'),
    ).toEqual([
      { at: 'web.retries changed', values: [{ path: 'statuses', before: [503], after: [503, 502] }] },
    ]);
  });
});

it('durations are shown as they are written', () => {
  expect(
    withUnits({ request: 1500, idle: 3_600_000, connect: 0, nested: [{ interval: 60_000, count: 5 }] }),
  ).toEqual({
    request: '1500ms',
    idle: '1h',
    connect: '0s',
    nested: [{ interval: '1m', count: 5 }],
  });
});
