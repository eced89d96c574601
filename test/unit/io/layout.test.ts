import { describe, expect, test } from 'vitest';
import { epollEventLayout } from '../../../src/io/layout.ts';

describe('struct epoll_event', () => {
  test('is packed on x64', () => {
    expect(epollEventLayout('x64')).toEqual({ size: 12, events: 0, descriptor: 4, generation: 8 });
  });
  test('is aligned on arm64', () => {
    expect(epollEventLayout('arm64')).toEqual({ size: 16, events: 0, descriptor: 8, generation: 12 });
  });
  test('is not guessed elsewhere', () => {
    expect(() => epollEventLayout('riscv64')).toThrow('riscv64');
  });
});
