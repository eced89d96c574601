import { randomBytes, randomInt } from 'node:crypto';
import { connect } from 'node:net';
import { join } from 'node:path';
import { entryFile, PROGRAM_DIRECTORY } from '../../io/installation.ts';
import type { Ip } from '../../model/address.ts';
import { selfTestAddress } from '../../model/self-test.ts';
import { selfTestAnswer } from '../../proxy/self-test.ts';
import { suspensionText } from '../suspensions.ts';
import { type Check, type CheckSubject, fail, ok, skip } from './check.ts';

/** Bound on one question and its answer. */
const ANSWER_MS = 3_000;
/** Ports that are asked for: none that is protected by default. */
const PORTS = [20_000, 60_000] as const;
/** Most of an answer that is read. */
const MAX_ANSWER = 256;
/** With `capture.percent` a connection may go direct: so many are tried. */
const MOST_TRIES = 50;
/** A chance of one in so many that a test fails although all is well. */
const LUCK = 10_000;

const families = ['ipv4', 'ipv6'] as const;

/**
 * Asks a question at the address of the self-test: undefined when the answer is right, else what happened instead. The
 * answer shows that redirection led to a worker, and that the worker lives.
 */
export function askSelfTest(ip: Ip): Promise<string | undefined> {
  const port = randomInt(...PORTS);
  const question = randomBytes(12).toString('hex');
  const began = performance.now();
  return new Promise((resolve) => {
    let answer = '';
    let connected = false;
    const socket = connect({ host: ip, port, timeout: ANSWER_MS });
    const end = (failure: string | undefined): void => {
      clearTimeout(timer);
      resolve(failure);
      socket.destroy();
    };
    const timer = setTimeout(
      () =>
        end(
          connected
            ? `it was accepted and not answered within ${ANSWER_MS / 1000} s`
            : 'no answer to the connection',
        ),
      ANSWER_MS,
    );
    socket.on('connect', () => {
      connected = true;
      socket.write(`${question}\n`);
    });
    socket.on('data', (bytes: Buffer) => {
      answer += bytes.toString('latin1');
      if (answer.length > MAX_ANSWER) end('something else answered');
    });
    socket.on('end', () => end(answer === selfTestAnswer(question) ? undefined : 'something else answered'));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const after = Math.round(performance.now() - began);
      end(`${error.code ?? error.message} after ${after} ms`);
    });
  });
}

/** On a running host: through the rules that stand there, to a worker and back, on both families. */
export const selfTest: Check = {
  name: 'self-test',
  run: async (subject) => {
    const { config } = subject;
    const { mode, percent } = config.capture;
    const status = await subject.daemon();
    if (status === undefined)
      return fail('the daemon does not run', 'mesh-node check --pre --self-test tests without it');
    if (mode !== 'services' && mode !== 'all') return skip(`nothing is redirected in mode ${mode}`);
    if (percent === 0) return skip('capture.percent is 0');
    const { suspensions } = status.interception;
    if (suspensions.length > 0) {
      const why = suspensions.map((reason) => suspensionText(reason, config.capture.disabledFile)).join('; ');
      return fail(`nothing is redirected now: ${why}`, 'mesh-node status');
    }
    const told: string[] = [];
    for (const family of families) {
      const ip = selfTestAddress(config.names[family]);
      if (ip === undefined || !(await usable(subject, family))) continue;
      const failure = await askUntilTaken(ip, percent);
      if (failure !== undefined) {
        return fail(
          `${family}: a connection to ${ip} was not redirected to a worker: ${failure}`,
          'mesh-node rules verify; mesh-node check tells of rules before ours and of missing routes',
        );
      }
      told.push(family);
    }
    if (told.length === 0) return skip('names.ipv4 and names.ipv6 are off');
    return ok(`connections were redirected and answered by a worker: ${told.join(' and ')}`);
  },
};

async function usable({ config, read }: CheckSubject, family: 'ipv4' | 'ipv6'): Promise<boolean> {
  if (family === 'ipv4') return true;
  return config.capture.ipv6 !== 'off' && Boolean((await read('/proc/net/if_inet6'))?.trim());
}

async function askUntilTaken(ip: Ip, percent: number): Promise<string | undefined> {
  const missed = 1 - percent / 100;
  const tries = missed === 0 ? 1 : Math.min(MOST_TRIES, Math.ceil(Math.log(1 / LUCK) / Math.log(missed)));
  let failure: string | undefined;
  for (let tried = 0; tried < tries; tried++) {
    failure = await askSelfTest(ip);
    if (failure === undefined) return undefined;
  }
  return failure;
}

/** Without the daemon: the same with the rules as they would be, in a network namespace that is gone afterwards. */
export const selfTestBefore: Check = {
  name: 'self-test',
  run: async ({ config, root, run }) => {
    if (!root) return skip('only root may make a network namespace');
    const program = join(PROGRAM_DIRECTORY, entryFile('cli/checks/self-test-main'));
    const input = JSON.stringify({ capture: config.capture, names: config.names });
    const result = await run('unshare', ['--net', '--', process.execPath, program], input);
    const said = result.stdout.trim();
    if (result.code === 0) return ok(`in a network namespace of its own: ${said}`);
    return fail(
      said || result.stderr.trim().split('\n').at(-1) || 'no result',
      'mesh-node check: iptables, extensions',
    );
  },
};
