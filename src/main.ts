#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCli } from './cli/program.ts';
import { PROGRAM_DIRECTORY } from './io/installation.ts';

const { version } = JSON.parse(readFileSync(join(PROGRAM_DIRECTORY, 'package.json'), 'utf8')) as {
  readonly version: string;
};

// A reader that went away (`mesh-node status | head`) is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

process.exitCode = await runCli(process.argv.slice(2), version, {
  env: process.env,
  columns: process.stdout.isTTY ? process.stdout.columns : undefined,
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
});
