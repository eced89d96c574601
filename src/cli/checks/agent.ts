import type { ReadyAnswer } from '../../admin/api.ts';
import { CliError } from '../context.ts';
import { DaemonClient } from '../daemon-client.ts';
import { differences } from '../rules.ts';
import { readRulesInput } from '../rules-input.ts';
import { type Check, fail, ok, skip } from './check.ts';

const rules: Check = {
  name: 'rules',
  run: async (config, context) => {
    if (process.getuid?.() !== 0) return skip('only root may look at the rules');
    const client = new DaemonClient(config.daemon.runtimeDirectory);
    const running = await client.ask('GET', '/v1/ready').then(
      () => true,
      () => false,
    );
    if (!running) return skip('the daemon does not run, so none are meant to be there');
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
  run: async (config) => {
    try {
      const { body } = await new DaemonClient(config.daemon.runtimeDirectory).ask('GET', '/v1/ready');
      const { ready, blockers } = body as ReadyAnswer;
      if (ready) return ok('running and ready');
      const reasons = blockers.map((one) => `${one.name}: ${one.reason}`).join('; ');
      return fail(`running, not ready: ${reasons}`, 'mesh-node status');
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      return fail(error.message, error.hint ?? 'systemctl status mesh-node');
    }
  },
};

/** What of the running agent has to be right. */
export const agentChecks: readonly Check[] = [rules, daemon];
