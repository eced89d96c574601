import { expect, test } from 'vitest';
import { ownJumps, parseTables } from '../../../src/capture/live-table.ts';

test('only rules that lead to a chain of ours are ours, whatever their comments say', () => {
  const saved = `*nat
:OUTPUT ACCEPT [0:0]
:MESH_OUT - [0:0]
:THEIRS - [0:0]
-A OUTPUT -j MESH_OUT
-A OUTPUT -m comment --comment "goes -j THEIRS" -g MESH_OUT
-A OUTPUT -m comment --comment "before -j MESH_OUT" -j THEIRS
-A OUTPUT -m comment --comment "they \\"said\\" -j MESH_OUT" -j THEIRS
-A OUTPUT -m comment --comment -j -j THEIRS
COMMIT
`;
  const table = parseTables(saved).get('nat')!;
  expect(ownJumps(table).map(({ rule }) => rule)).toEqual([
    '-j MESH_OUT',
    '-m comment --comment "goes -j THEIRS" -g MESH_OUT',
  ]);
});
