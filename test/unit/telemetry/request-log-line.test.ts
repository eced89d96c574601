import { describe, expect, it } from 'vitest';
import type { RequestRecord } from '../../../src/model/request.ts';
import { requestLogLine } from '../../../src/telemetry/request-log-line.ts';
import { sampleRequest } from './sample-request.ts';

const parsed = (change: Partial<RequestRecord>): Record<string, unknown> =>
  JSON.parse(requestLogLine({ ...sampleRequest, ...change })) as Record<string, unknown>;

describe('a line about a request', () => {
  it('holds the whole record', () => {
    const { startedAt, caller, callerProgram, ...rest } = sampleRequest;
    expect(callerProgram).toBeUndefined();
    expect(parsed({})).toEqual({
      log: 'request',
      time: '2026-01-02T03:04:05.678Z',
      ...rest,
      caller: `unit:${caller?.unit}`,
      user: caller?.user,
      durationMs: 2.346,
      detail: null,
    });
    expect(startedAt).toBe(Date.parse('2026-01-02T03:04:05.678Z'));
  });

  it('names the route that it took, if there is one', () => {
    expect(parsed({ route: 'canary' })).toMatchObject({ route: 'canary' });
    expect(parsed({})).not.toHaveProperty('route');
  });

  it('of one that was refused says null for what was not read, and which rule it broke', () => {
    const unread = { method: undefined, authority: undefined, target: undefined, traceId: undefined };
    expect(parsed({ ...unread, status: 400, reason: 'line-end', instance: undefined })).toMatchObject({
      ...{ method: null, authority: null, target: null, traceId: null, instance: null },
      ...{ status: 400, reason: 'line-end' },
    });
  });

  it('says what the caller is called by its agent, where that is known', () => {
    expect(parsed({ callerProgram: 'container:0123456789ab' })).toMatchObject({
      caller: 'container:0123456789ab',
    });
    expect(parsed({ caller: undefined })).toMatchObject({ caller: null, user: null });
  });

  it('has no more of a target than 512 characters', () => {
    const target = `/${'a'.repeat(8000)}`;
    expect(parsed({ target })['target']).toBe(target.slice(0, 512));
  });

  it.each(['x', '"', '\u0000', '\u{1f600}'])(
    'fits into one write to a pipe, were every text of %j',
    (character) => {
      const wild = character.repeat(10_000);
      const record: Record<string, unknown> = {
        ...sampleRequest,
        caller: { user: wild },
        callerProgram: wild,
      };
      const kept = ['path', 'reason', 'caller', 'callerProgram'];
      for (const [key, value] of Object.entries(sampleRequest)) {
        if (typeof value === 'number') record[key] = key === 'startedAt' ? 8.64e15 : Number.MAX_SAFE_INTEGER;
        else if (!kept.includes(key) && typeof value !== 'boolean') record[key] = wild;
      }
      const line = requestLogLine(record as unknown as RequestRecord);
      expect(line.length).toBeLessThan(4096);
      expect(line).toMatch(/^[ -~]+\n$/);
      expect(() => JSON.parse(line)).not.toThrow();
    },
  );
});
