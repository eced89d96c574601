import { describe, expect, it } from 'vitest';
import type { NodeName, ServiceName } from '../../../../src/model/service.ts';
import { callerPatternProblem, compileCallers } from '../../../../src/policy/match/caller.ts';
import type { CallerView } from '../../../../src/policy/match/request-view.ts';

function caller(program: string | undefined, service?: string, node = 'web1'): CallerView {
  return {
    program,
    service: service as ServiceName | undefined,
    node: node as NodeName,
    address: '10.0.0.1',
  };
}

describe('compileCallers', () => {
  it.each<[string, CallerView, boolean]>([
    ['*', caller(undefined), true],
    ['service:shop', caller(undefined, 'shop'), true],
    ['service:shop', caller(undefined, 'shop2'), false],
    ['service:shop', caller(undefined), false],
    ['service:shop*', caller(undefined, 'shop2'), true],
    ['service:*', caller(undefined), false],
    ['unit:orders.service', caller('unit:orders.service'), true],
    ['unit:orders', caller('unit:orders.service'), true],
    ['unit:orders', caller('unit:orders.socket'), false],
    ['unit:orders', caller('unit:orders2.service'), false],
    ['unit:a.b', caller('unit:a.b.service'), true],
    ['unit:backup.timer', caller('unit:backup.timer'), true],
    ['unit:backup.timer', caller('unit:backup.timer.service'), false],
    ['unit:worker@*', caller('unit:worker@7.service'), true],
    ['unit:worker@*', caller('unit:worker.service'), false],
    ['unit:orders', caller('user:orders'), false],
    ['user:alice', caller('user:alice'), true],
    ['user:alice', caller('unit:alice.service'), false],
    ['container:0123456789ab', caller('container:0123456789ab'), true],
    ['container:0123456789abcdef0123', caller('container:0123456789ab'), true],
    ['container:0123*', caller('container:0123456789ab'), true],
    ['container:0123456789abcdef*', caller('container:0123456789ab'), true],
    ['node:web1', caller(undefined), true],
    ['node:web*', caller(undefined), true],
    ['node:db1', caller(undefined), false],
    ['user:*', caller('unknown'), false],
    ['nonsense', caller('nonsense'), false],
  ])('%s of %j: %s', (pattern, who, holds) => expect(compileCallers([pattern])(who)).toBe(holds));

  it('takes one of several, and nobody where none is named', () => {
    const either = compileCallers(['user:alice', 'service:shop']);
    expect([caller('user:alice'), caller('user:bob', 'shop'), caller('user:bob')].map(either)).toEqual([
      true,
      true,
      false,
    ]);
    expect(compileCallers([])(caller('user:alice'))).toBe(false);
  });
});

describe('callerPatternProblem', () => {
  it.each(['*', 'unit:a', 'service:a.b*', 'node:n*', 'container:ab', 'user:1000'])('takes %s', (pattern) =>
    expect(callerPatternProblem(pattern)).toBeUndefined(),
  );
  it.each([
    ...['', 'alice', 'unit:', 'pid:7', 'unit:a*b', 'user:a b', '**'],
    ...['service:Shop', 'service:a/b', 'node:Web1', 'container:web', 'container:ABC*'],
  ])('says why not %j', (pattern) => expect(callerPatternProblem(pattern)).toMatch(/./));
});
