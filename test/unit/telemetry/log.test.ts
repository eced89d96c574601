import { describe, expect, it } from 'vitest';
import { MeshError } from '../../../src/model/errors.ts';
import { createLog, type Log, logChange } from '../../../src/telemetry/log.ts';

function capture(): { readonly log: Log; readonly lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const to = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) };
  return { log: createLog({ level: 'info', process: 'worker-0', to }), lines };
}

describe('log', () => {
  it('writes one JSON object a line, with level, time, process and component', () => {
    const { log, lines } = capture();
    log.child({ component: 'tunnel' }).info({ peer: 'b' }, 'open');
    log.debug('not seen');
    expect(lines).toEqual([
      {
        level: 'info',
        time: expect.stringMatching(/^\d{4}-.*Z$/) as string,
        process: 'worker-0',
        component: 'tunnel',
        peer: 'b',
        msg: 'open',
      },
    ]);
  });

  it('tells errors of the world without a stack, and faults of the program with one', () => {
    const { log, lines } = capture();
    const cause = Object.assign(new Error('no'), { code: 'ECONNREFUSED' });
    log.warn({ err: new MeshError('refused', 'peer', 'dial failed', { cause }) }, 'x');
    log.error({ err: new TypeError('ours') }, 'y');
    expect(lines[0]!['err']).toEqual({
      message: 'dial failed',
      code: 'refused',
      source: 'peer',
      cause: { message: 'no', code: 'ECONNREFUSED' },
    });
    expect((lines[1]!['err'] as { stack: string }).stack).toContain('TypeError: ours');
  });

  it('logs changes of state as A → B, and only changes', () => {
    const { log, lines } = capture();
    logChange(log, 'tunnel', 'connecting', 'open', { peer: 'b' });
    logChange(log, 'tunnel', 'open', 'open');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({
      msg: 'tunnel: connecting → open',
      from: 'connecting',
      to: 'open',
      peer: 'b',
    });
  });
});
