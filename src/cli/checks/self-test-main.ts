import { execFileSync } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { emptySets } from '../../capture/capture-plan.ts';
import { Interception } from '../../capture/interception.ts';
import { NOTHING_SAID } from '../../capture/rules/input.ts';
import type { Config } from '../../config/schema.ts';
import { createListeningSocket, TcpListener } from '../../io/listener.ts';
import { interceptionOf } from '../../io/original-destination.ts';
import { Poller } from '../../io/poller.ts';
import type { Ip } from '../../model/address.ts';
import { reasonOf } from '../../model/errors.ts';
import { selfTestAddress } from '../../model/self-test.ts';
import { SelfTestResponder } from '../../proxy/self-test.ts';
import { askSelfTest } from './self-test.ts';

/*
 * `mesh-node check --pre --self-test`, in a network namespace of its own: the rules as they would be, a listener of the
 * agent's own kind, and a question to it on each family. Reads the configuration from standard input; the process ends
 * with 0 when every answer was right. Nothing is left: the namespace goes with the process.
 */

/** Nobody's: the agent's own connections are not taken, and this process must not be the agent. */
const AGENT_UID = 65_533;
const LOOPBACK = { ipv4: '127.0.0.1', ipv6: '::1' } as const;

/** Every host has an address beside loopback, and connections to virtual addresses come from it (RFC 5737, RFC 3849). */
const NETWORK = `link set lo up
address add 192.0.2.1/32 dev lo
address add 2001:db8::1/128 dev lo nodad
`;

type Settings = Pick<Config, 'capture' | 'names'>;

/** What is redirected always: gradual introduction and signs of life are not what is tested here. */
function plain({ capture, names }: Settings): Settings {
  const mode = capture.mode === 'all' ? 'all' : 'services';
  return { names, capture: { ...capture, mode, bridges: [], percent: 100, deadAfter: 0 } };
}

function listen(poller: Poller, ip: Ip, port: number, responder: SelfTestResponder): void {
  const fd = createListeningSocket({ ip, port, backlog: 16, v6only: true });
  new TcpListener(poller, fd, {
    acceptBatch: 16,
    onConnection: (channel) => {
      if (interceptionOf(channel, port).kind === 'redirected') responder.accept(channel);
      else channel.reset();
    },
  });
}

async function main(): Promise<number> {
  const settings = plain(JSON.parse(await text(process.stdin)) as Settings);
  const { capture, names } = settings;
  execFileSync('ip', ['-batch', '-'], { input: NETWORK });
  const quiet = { info: () => undefined, warn: () => undefined };
  const interception = new Interception({ config: settings, uid: AGENT_UID, ports: [], log: quiet });
  await interception.apply({ ...NOTHING_SAID, sets: emptySets });
  const poller = new Poller();
  const responder = new SelfTestResponder((ms, expired) => poller.deadlines.after(ms, expired));
  const told: string[] = [];
  for (const family of interception.status().backend?.families ?? []) {
    const ip = selfTestAddress(names[family]);
    if (ip === undefined) continue;
    listen(poller, LOOPBACK[family] as Ip, capture.port, responder);
    const failure = await askSelfTest(ip);
    if (failure !== undefined)
      throw new Error(`${family}: a connection to ${ip} was not redirected: ${failure}`);
    told.push(family);
  }
  console.log(
    told.length === 0 ? 'names.ipv4 and names.ipv6 are off' : `redirected on ${told.join(' and ')}`,
  );
  return 0;
}

process.exit(
  await main().catch((error: unknown) => {
    console.log(reasonOf(error));
    return 1;
  }),
);
