import { Command } from 'commander';
import { expect, it } from 'vitest';
import { commandsFor } from '../../../src/cli/commands.ts';

const context = { env: {}, columns: 80, stdout: () => {}, stderr: () => {} };

async function namesFor(...argv: string[]): Promise<readonly string[]> {
  const program = new Command();
  for (const add of await commandsFor(argv)) add(program, context);
  return program.commands.map((command) => command.name());
}

it('finds every command by its own name, and by no other', async () => {
  const all = await namesFor();
  expect(all).toContain('zone-agent');
  for (const name of all) {
    const found = await namesFor(name);
    expect(found).toContain(name);
    expect(found.length).toBeLessThan(3);
  }
});

it('finds it behind options with values, also where a value is the name of another', async () => {
  expect(await namesFor('--config', 'status', 'reload')).toEqual(['status', 'reload']);
});

it('knows all of them for help and for what is no command, and needs none for the version', async () => {
  const all = await namesFor();
  for (const argv of [['--help'], ['-h'], ['help', 'status'], ['statsu']])
    expect(await namesFor(...argv)).toEqual(all);
  expect(await namesFor('--version')).toEqual([]);
});
