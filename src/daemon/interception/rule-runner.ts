import { type CommandRunner, plainRunner } from '../../capture/command.ts';
import { type Capability, hasCapability, withAmbientCapabilities } from '../../io/capabilities.ts';

/** What iptables, ipset and ip need. RAW is asked for by iptables-legacy only. */
const RULE_CAPABILITIES: readonly Capability[] = ['CAP_NET_ADMIN', 'CAP_NET_RAW'];

/** Starts iptables, ipset and ip with the capabilities that they need, and nothing else ever with any. */
export const ruleRunner: CommandRunner = {
  run: (command) => {
    if (process.geteuid?.() === 0 || !hasCapability('CAP_NET_ADMIN')) return plainRunner.run(command);
    const held = RULE_CAPABILITIES.filter(hasCapability);
    return withAmbientCapabilities(held, () => plainRunner.run(command));
  },
};
