import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { AccessLog } from '../../../src/telemetry/access-log.ts';
import { accessLogLine } from '../../../src/telemetry/access-log-line.ts';
import { requestLogLine } from '../../../src/telemetry/request-log-line.ts';
import { sampleRecord } from './sample-record.ts';
import { sampleRequest } from './sample-request.ts';

const directory = mkdtempSync(join(tmpdir(), 'mncli-log-'));
afterAll(() => rmSync(directory, { recursive: true }));

const linesOf = (file: string): string[] => readFileSync(file, 'utf8').split('\n').slice(0, -1);

describe('a line', () => {
  it('holds the whole record', () => {
    const { startedAt, caller, callerProgram, ...rest } = sampleRecord;
    expect(callerProgram).toBeUndefined();
    expect(JSON.parse(accessLogLine(sampleRecord))).toEqual({
      log: 'access',
      time: '2026-01-02T03:04:05.678Z',
      ...rest,
      caller: `unit:${caller?.unit}`,
      user: caller?.user,
      durationMs: 12.346,
      detail: null,
    });
    expect(startedAt).toBe(Date.parse('2026-01-02T03:04:05.678Z'));
  });

  it.each(['"', '\\', '\n', '\u0000', 'é', '\u2028', '😀', '\ud800', 'a"b\\c\td'])('escapes %j', (detail) => {
    const line = accessLogLine({ ...sampleRecord, detail });
    expect(line).toMatch(/^[ -~]+\n$/);
    expect((JSON.parse(line) as { detail: string }).detail).toBe(detail);
  });

  it('fits into one write to a pipe, whatever the fields hold', () => {
    const wild = '\u{1f600}'.repeat(5000);
    const long = 'x'.repeat(253) as never;
    const line = accessLogLine({
      ...sampleRecord,
      callerNode: long,
      callerService: long,
      service: long,
      instance: long,
      zone: long,
      detail: wild,
    });
    expect(line.length).toBeLessThan(4096);
    expect(() => JSON.parse(line)).not.toThrow();
  });
});

describe('a file', () => {
  it('gets every line, and again after it was moved away', async () => {
    const file = join(directory, 'a.log');
    const log = new AccessLog({ target: file, bufferBytes: 1 << 20 });
    for (let i = 0; i < 500; i++) log.write({ ...sampleRecord, attempts: i });
    await vi.waitFor(() => expect(linesOf(file)).toHaveLength(500), { timeout: 10_000 });
    renameSync(file, `${file}.1`);
    log.reopen();
    await vi.waitFor(() => expect(linesOf(file)).toHaveLength(0), { timeout: 10_000 });
    log.write(sampleRecord);
    await log.close();
    expect(linesOf(file)).toEqual([accessLogLine(sampleRecord).trimEnd()]);
    expect(linesOf(`${file}.1`).map((line) => (JSON.parse(line) as { attempts: number }).attempts)).toEqual(
      Array.from({ length: 500 }, (_, i) => i),
    );
    expect(log.dropped).toBe(0);
    log.write(sampleRecord);
    await log.close();
  });

  it('has the lines of requests among those of connections, in the order of their ends', async () => {
    const file = join(directory, 'requests.log');
    const log = new AccessLog({ target: file, bufferBytes: 1 << 20 });
    log.writeRequest(sampleRequest);
    log.write(sampleRecord);
    log.writeRequest({ ...sampleRequest, status: 404 });
    await log.close();
    log.writeRequest(sampleRequest);
    expect(readFileSync(file, 'utf8')).toBe(
      requestLogLine(sampleRequest) +
        accessLogLine(sampleRecord) +
        requestLogLine({ ...sampleRequest, status: 404 }),
    );
  });

  it('that nobody reads loses requests as it does connections', async () => {
    const log = new AccessLog({ target: join(directory, 'missing/b.log'), bufferBytes: 1000 });
    for (let i = 0; i < 10; i++) log.writeRequest(sampleRequest);
    const fit = Math.floor(1000 / requestLogLine(sampleRequest).length);
    expect(log.dropped).toBe(10 - fit);
    await log.close();
    expect(log.dropped).toBe(10);
  });

  it('that cannot be opened costs lines, not the program', async () => {
    const failures: string[] = [];
    const log = new AccessLog({
      target: join(directory, 'missing/a.log'),
      bufferBytes: 1000,
      onFailure: (reason) => failures.push(reason),
    });
    for (let i = 0; i < 10; i++) log.write(sampleRecord);
    await vi.waitFor(() => expect(failures).toHaveLength(1), { timeout: 10_000 });
    await log.close();
    expect(log.dropped).toBe(10);
  });

  it('on a full disk loses what it cannot take, and says so once', async () => {
    const failures: string[] = [];
    let dropped = 0;
    const log = new AccessLog({
      target: '/dev/full',
      bufferBytes: 1 << 20,
      onFailure: (reason) => failures.push(reason),
      onDropped: (lines) => {
        dropped += lines;
      },
    });
    for (let i = 0; i < 10; i++) log.write(sampleRecord);
    await log.close();
    expect(dropped).toBe(10);
    expect(log.dropped).toBe(10);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toContain('ENOSPC');
  });

  it('that was cut in the middle of a line by a full disk goes on with a new one', async () => {
    const file = join(directory, 'small/a.log');
    mkdirSync(join(directory, 'small'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'access-log', join(directory, 'small')]);
    try {
      const log = new AccessLog({ target: file, bufferBytes: 1 << 20 });
      for (let i = 0; i < 30; i++) log.write({ ...sampleRecord, attempts: i });
      await vi.waitFor(() => expect(log.dropped).toBeGreaterThan(0), { timeout: 10_000 });
      const whole = readFileSync(file, 'latin1').split('\n').length - 1;
      expect(log.dropped, 'lines that are there are not counted as lost').toBe(30 - whole);
      execFileSync('mount', ['-o', 'remount,size=64k', join(directory, 'small')]);
      log.write(sampleRecord);
      await log.close();
      const lines = linesOf(file);
      expect(lines).toHaveLength(whole + 2);
      expect(() => JSON.parse(lines[whole]!)).toThrow();
      expect(JSON.parse(lines.at(-1)!)).toMatchObject({ log: 'access' });
    } finally {
      // Lazily: where an expectation failed the file is still open, and that is what should be seen.
      execFileSync('umount', ['-l', join(directory, 'small')]);
    }
  });

  it('that nobody reads fills the buffer, then lines are dropped and counted', async () => {
    const pipe = join(directory, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const log = new AccessLog({ target: pipe, bufferBytes: 10_000 });
    // Opening a pipe waits for its reader, in libuv's pool; the loop goes on.
    const before = 10_000;
    for (let i = 0; i < 1000; i++) log.write(sampleRecord);
    const size = accessLogLine(sampleRecord).length;
    expect(log.dropped).toBe(1000 - Math.floor(before / size));
    const reader = openSync(pipe, 'r+');
    await log.close();
    closeSync(reader);
  });
});

describe('off', () => {
  it('does nothing', async () => {
    const log = new AccessLog({ target: 'off', bufferBytes: 1 });
    log.write(sampleRecord);
    log.writeRequest(sampleRequest);
    log.reopen();
    await log.close();
    expect(log.dropped).toBe(0);
  });
});
