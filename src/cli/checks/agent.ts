import type { RulesAnswer, ServicesAnswer } from '../../admin/api.ts';
import { differences } from '../rules.ts';
import { readRulesInput } from '../rules-input.ts';
import { suspensionText } from '../suspensions.ts';
import { accessCheck } from './access.ts';
import { type Check, fail, listed, ok, skip, warn } from './check.ts';

const NOT_RUNNING = 'the daemon does not run';
/** Services of a list; more are counted and not named. */
const MOST_SERVICES = '10000';

const rules: Check = {
  name: 'rules',
  run: async ({ config, context, root, daemon }) => {
    if (!root) return skip('only root may look at the rules');
    const status = await daemon();
    if (status === undefined) return skip(`${NOT_RUNNING}, so none are meant to be there`);
    if (status.interception.state !== 'applied') return skip(`they are ${status.interception.state}`);
    const found = await differences(config, await readRulesInput(config, context, undefined));
    if (found.length === 0) return ok('as they should be');
    const [first] = found;
    return fail(
      `${found.length} differences, first: ${first!.detail} (${first!.subject})`,
      'mesh-node rules verify',
    );
  },
};

const daemon: Check = {
  name: 'daemon',
  run: async (subject) => {
    const status = await subject.daemon();
    if (status === undefined) {
      const at = subject.config.daemon.runtimeDirectory;
      return fail(
        `the daemon does not answer at ${at}/admin.sock`,
        'systemctl status mesh-node; or you may not ask it: run it as root',
      );
    }
    if (status.ready) return ok('running and ready');
    const reasons = status.blockers.map((one) => `${one.name}: ${one.reason}`).join('; ');
    return fail(`running, not ready: ${reasons}`, 'mesh-node status');
  },
};

/** Whether new connections are taken, and if not, why. */
const interception: Check = {
  name: 'interception',
  run: async ({ config, daemon, get }) => {
    const status = await daemon();
    if (status === undefined) return skip(NOT_RUNNING);
    const { state, suspensions } = status.interception;
    const { disabledFile, mode } = config.capture;
    if (state === 'withdrawn-by-operator')
      return fail(
        'the rules were flushed again and again, so the agent stays out',
        'mesh-node reload takes them in again',
      );
    if (suspensions.length > 0) {
      const why = suspensions.map((reason) => suspensionText(reason, disabledFile)).join('; ');
      return warn(
        `new connections go direct: ${why}`,
        'strict services are refused meanwhile: mesh-node status',
      );
    }
    const answer = await get<RulesAnswer>('/v1/rules');
    const { ipv4 = 0, ipv6 = 0 } = answer?.destinations ?? {};
    return ok(`${state}, mode ${mode}, ${ipv4} IPv4 and ${ipv6} IPv6 destinations`);
  },
};

/** What the agent measured of itself. */
const guard: Check = {
  name: 'guard',
  run: async (subject) => {
    const status = await subject.daemon();
    if (status === undefined) return skip(NOT_RUNNING);
    if (status.guard.state === 'in') return ok('the agent finds no fault with itself');
    return warn(
      `out: ${status.guard.reason ?? ''}`,
      'new connections go direct until it is over: docs/operations.md, "When the agent withdraws by itself"',
    );
  },
};

/** Names that the operator has to know before anything is taken away: strict ones fail closed. */
const services: Check = {
  name: 'services',
  run: async ({ get }) => {
    const answer = await get<ServicesAnswer>('/v1/services', { limit: MOST_SERVICES });
    if (answer === undefined) return skip(NOT_RUNNING);
    const of = (mode: string): string => {
      const names = answer.services.filter((one) => one.mode === mode).map(({ name }) => name);
      return names.length === 0 ? 'none' : listed(names);
    };
    return ok(`strict: ${of('strict')}; permissive: ${of('permissive')}`);
  },
};

/** What of the running agent has to be right. */
export const agentChecks: readonly Check[] = [daemon, interception, rules, guard, services, accessCheck];
