import { describe, expect, it } from 'vitest';
import { plainRunner } from '../../../src/capture/command.ts';

describe('plainRunner', () => {
  it('feeds the input and gives both outputs and the code', async () => {
    const result = await plainRunner.run({
      program: 'sh',
      args: ['-c', 'cat; echo bad >&2; exit 3'],
      input: 'text',
      timeoutMs: 5000,
    });
    expect(result).toEqual({ code: 3, stdout: 'text', stderr: 'bad\n', timedOut: false });
  });

  it('passes nothing of its own environment', async () => {
    const { stdout } = await plainRunner.run({
      program: 'env',
      args: [],
      environment: { XTABLES_LOCKFILE: '/x', PATH: '/elsewhere' },
      timeoutMs: 5000,
    });
    expect(stdout.trim().split('\n').sort()).toEqual([
      'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
      'XTABLES_LOCKFILE=/x',
    ]);
  });

  it('kills what takes too long, and does not wait for its children', async () => {
    const result = await plainRunner.run({
      program: 'sh',
      args: ['-c', 'sleep 2 & sleep 2'],
      timeoutMs: 50,
    });
    expect(result).toMatchObject({ code: undefined, timedOut: true });
  });

  it('reports a program that is not there, and survives one that does not read', async () => {
    expect(await plainRunner.run({ program: 'mncap-none', args: [], timeoutMs: 5000 })).toMatchObject({
      code: 127,
    });
    const input = 'x'.repeat(1_000_000);
    expect(await plainRunner.run({ program: 'true', args: [], input, timeoutMs: 5000 })).toMatchObject({
      code: 0,
    });
  });
});
