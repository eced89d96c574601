import { describe, expect, it } from 'vitest';
import { LineWriter } from '../../../src/telemetry/line-writer.ts';

const line = new LineWriter();

describe('a line', () => {
  it('is what was put into it, once', () => {
    line.ascii('{"a":').number(17).ascii(',"b":').milliseconds(1.23456).ascii('}\n');
    expect(line.take()).toBe('{"a":17,"b":1.235}\n');
    expect(line.take()).toBe('');
  });

  it('has texts as JSON has them, bounded', () => {
    for (const value of ['', 'plain', 'plain\n', '"', 'a\\', '\u0000', '\u007f', 'é', '😀', undefined])
      expect(JSON.parse(line.text(value, 32).take())).toBe(value ?? null);
    expect(line.text('abcdef', 4).take()).toBe('"abcd"');
    expect(line.text('abcé', 4).take()).toBe('"abc"');
    expect(line.ascii('[').text('ab"', 4).ascii(']').take()).toBe('["ab\\""]');
  });

  it.each([
    0,
    1,
    999,
    1000,
    Date.UTC(2026, 0, 2, 3, 4, 5, 7),
    Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    -1,
    8.64e15,
  ])('has %i as ISO 8601 has it', (milliseconds) => {
    const text = new Date(milliseconds).toISOString();
    expect(line.time(milliseconds).take()).toBe(text);
    expect(line.time(milliseconds).take(), 'the same second again').toBe(text);
  });
});
