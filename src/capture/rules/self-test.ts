import { selfTestAddress } from '../../model/self-test.ts';
import type { Family } from '../names.ts';
import type { RuleInput } from './input.ts';

/**
 * Takes connections to the address at which the agent answers itself, whatever port they ask for and whoever opens them:
 * what stands in the way of other connections stands in the way of these.
 */
export function selfTestRules({ names }: Pick<RuleInput, 'names'>, family: Family, target: string): string[] {
  const address = selfTestAddress(names[family]);
  if (address === undefined) return [];
  return [`-d ${address}/${family === 'ipv4' ? 32 : 128} -p tcp -m tcp --syn -g ${target}`];
}
