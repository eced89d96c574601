import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { configurationPage, configurationSchema } from '../config/documentation.ts';
import { PROGRAM_DIRECTORY } from '../io/installation.ts';
import { policiesPage, policySchema } from '../policy/documentation.ts';
import { metricsPage } from '../telemetry/documentation.ts';

/*
 * Writes the pages of docs/ that are made from the code: `node dist/cli/generate-docs.js`. With `--check` it writes
 * nothing and ends with 1 when one of them is not what it would write.
 */

const docs = join(PROGRAM_DIRECTORY, 'docs');
const pages: readonly (readonly [name: string, text: string])[] = [
  ['configuration.md', configurationPage()],
  ['configuration.schema.json', configurationSchema()],
  ['metrics.md', metricsPage()],
  ['policies.md', policiesPage()],
  ['policies.schema.json', policySchema()],
];

for (const [name, text] of pages) {
  const file = join(docs, name);
  if (!process.argv.includes('--check')) await writeFile(file, text);
  else if ((await readFile(file, 'utf8').catch(() => '')) !== text) {
    process.stderr.write(`docs/${name} is not what the code says: npm run docs:generate\n`);
    process.exitCode = 1;
  }
}
