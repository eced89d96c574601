import { fileURLToPath } from 'node:url';
import { defineConfig } from 'rolldown';

// Bundled because a process of the daemon, and every command, spends most of its start on finding and compiling modules one
// by one: as one file per process it takes half the CPU. Node's own modules and what has native parts stay outside.

/** Programs that are started by name (src/io/installation.ts), and the one that writes docs/. */
const entries = [
  'main',
  'daemon/worker/worker-main',
  'registry/document-thread-main',
  'policy/reader-thread-main',
  'cli/checks/self-test-main',
  'cli/generate-docs',
];

export default defineConfig({
  cwd: fileURLToPath(new URL('.', import.meta.url)),
  input: Object.fromEntries(entries.map((name) => [name, `src/${name}.ts`])),
  platform: 'node',
  transform: { target: 'es2023' }, // what Node 20 knows, as in tsconfig.json
  external: ['koffi', 'msgpackr-extract'],
  output: {
    dir: 'dist',
    sourcemap: true,
    sourcemapExcludeSources: true,
    entryFileNames: '[name].js',
    chunkFileNames: 'chunks/[name]-[hash].js',
  },
});
