import type { Command } from 'commander';
import { type ConfigSources, loadConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { printable, printableJson } from './printable.ts';

/** What a run of the program ended with; documented in `mesh-node --help`. */
export const exitCodes = {
  ok: 0,
  /** A check failed, or the answer is no. */
  failed: 1,
  usage: 2,
  configuration: 3,
  /** The daemon cannot be reached. */
  unreachable: 4,
  /** The kernel, a file or a program refused; often: not root. */
  system: 5,
  /** A fault of mesh-node itself. */
  internal: 70,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** What an operator is told instead of a stack trace. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  readonly hint: string | undefined;

  constructor(exitCode: ExitCode, message: string, hint?: string) {
    super(message);
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** The world around a command; tests bring their own. */
export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Width of the terminal; absent when the output goes elsewhere, then nothing is cut. */
  readonly columns: number | undefined;
  stdout(text: string): void;
  stderr(text: string): void;
}

/** Options that every command has. */
interface GlobalOptions {
  readonly config?: string;
  readonly set?: readonly string[];
  readonly output?: string;
}

/** Where this command's configuration comes from. */
export function sourcesOf(command: Command, context: CliContext, file?: string): ConfigSources {
  const options = command.optsWithGlobals<GlobalOptions>();
  const named = file ?? options.config;
  return { env: context.env, flags: options.set ?? [], ...(named === undefined ? {} : { file: named }) };
}

/** This command's configuration; throws a ConfigError. */
export function configOf(command: Command, context: CliContext): Config {
  return loadConfig(sourcesOf(command, context));
}

/** Prints a value as `-o` asks for: as JSON, or as text for people. */
export function print(command: Command, context: CliContext, value: unknown, text: () => string): void {
  const json = command.optsWithGlobals<GlobalOptions>().output === 'json';
  const printed = json ? printableJson(JSON.stringify(value, undefined, 2)) : printable(text());
  context.stdout(printed.endsWith('\n') || printed === '' ? printed : `${printed}\n`);
}
