import { formatProblem } from '../../../src/config/problem.ts';
import type { ServicePolicy } from '../../../src/model/policy.ts';
import { type PolicyContent, type PolicyFile, readPolicies } from '../../../src/policy/reading.ts';

/** Files of a directory `/p`, by name. */
export function files(texts: Readonly<Record<string, string>>): readonly PolicyFile[] {
  return Object.entries(texts).map(([name, text]) => ({
    path: `/p/${name}`,
    bytes: new Uint8Array(Buffer.from(text)),
  }));
}

/** What these texts make; throws what is wrong. */
export function content(...texts: readonly string[]): PolicyContent {
  const reading = readPolicies(files(Object.fromEntries(texts.map((text, at) => [`${at}.yaml`, text]))));
  if ('problems' in reading) throw new Error(reading.problems.map(formatProblem).join('\n'));
  return reading;
}

/** What a document without its `service:` says. */
export function policy(sections: string): ServicePolicy {
  return content(`service: web\n${sections}`).policies.services['web']!;
}

/** What is wrong with one file, line by line, without its path. */
export function problems(text: string): readonly string[] {
  const reading = readPolicies(files({ a: text }));
  if (!('problems' in reading)) return [];
  return reading.problems.map((one) => formatProblem(one).replace(/^\/p\/a:(?: |(?=\d))/, ''));
}
