import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type CommandRunner, plainRunner } from '../../../src/capture/command.ts';

/** Runs a program and gives its output; a failure throws with what it said. */
function sh(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Bound on one question to an agent. */
const ANSWER_TIMEOUT_MS = 60_000;
/** How long silence lasts before it is called that, where an answer is due. */
const PATIENCE_MS = 20_000;
/** The same where none is: long enough for what is refused on a busy machine, and one more SYN. */
const SILENCE_MS = 3_000;

/** The program that listens and connects inside a namespace: one JSON question a line, one JSON answer a line. */
const AGENT = `
const net = require('net'), dgram = require('dgram'); const held = new Map(); let beats;
// Counted in turns of the loop: one that was not let run for so long has an answer waiting, and timers come before it.
const after = (ms, done) => {
  let left = ms / 100;
  const timer = setInterval(() => { if (--left <= 0) { clearInterval(timer); done(); } }, 100);
  return timer;
};
const first = (socket, patience = ${PATIENCE_MS}) => new Promise((resolve) => {
  const timer = after(patience, () => { socket.destroy(); resolve('timeout'); });
  const end = (text) => { clearInterval(timer); resolve(text); };
  socket.once('data', (data) => end(String(data).trim()));
  socket.once('error', (error) => end(error.code));
  socket.once('close', () => end('closed'));
});
const ops = {
  listen: ({ host, port, label }) => new Promise((resolve) => {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      socket.write(label + '\\n');
      socket.on('error', () => {});
      socket.pipe(socket);
    });
    server.once('error', (error) => resolve(error.code));
    server.listen({ host, port }, () => resolve('listening'));
  }),
  probe: async ({ host, port, patience }) => {
    const socket = net.connect({ host, port });
    const answer = await first(socket, patience);
    socket.on('error', () => {});
    socket.destroy();
    return answer;
  },
  hold: async ({ id, host, port }) => {
    const socket = net.connect({ host, port });
    const answer = await first(socket);
    socket.on('error', () => {});
    held.set(id, socket);
    return answer;
  },
  many: async ({ host, port, count }) => {
    const seen = {};
    let left = count;
    const client = async () => {
      while (left-- > 0) {
        const answer = await ops.probe({ host, port });
        seen[answer] = (seen[answer] || 0) + 1;
      }
    };
    await Promise.all(Array.from({ length: 32 }, client));
    return JSON.stringify(seen);
  },
  udp: ({ host, port }) => new Promise((resolve) => {
    const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
    let again;
    const end = (text) => { clearInterval(timer); clearInterval(again); if (again) socket.close(); again = undefined; resolve(text); };
    const timer = after(${PATIENCE_MS}, () => end('timeout'));
    const send = () => socket.send('x', (error) => { if (error) end(error.code); });
    socket.on('error', (error) => end(error.code));
    // The kernel tells of a few datagrams a second only.
    socket.connect(port, host, () => { again = setInterval(send, 200); send(); });
  }),
  beat: ({ port, on }) => {
    clearInterval(beats);
    if (!on) return 'stopped';
    const four = dgram.createSocket('udp4'), six = dgram.createSocket('udp6');
    beats = setInterval(() => {
      four.send('', port, '127.0.0.1', () => {});
      six.send('', port, '::1', () => {});
    }, 100);
    return 'beats';
  },
  talk: async ({ id }) => {
    const socket = held.get(id);
    if (socket.destroyed) return 'gone';
    const answer = first(socket);
    socket.write('still-here\\n');
    return answer;
  },
};
require('readline').createInterface({ input: process.stdin }).on('line', async (line) => {
  const question = JSON.parse(line);
  const answer = await ops[question.op](question);
  console.log(JSON.stringify({ number: question.number, answer }));
}).on('close', () => process.exit(0));
`;

/** Programs of one user inside a namespace: servers that greet with a label and echo, and clients. */
export class Agent {
  readonly pid: number;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiting = new Map<number, (answer: string) => void>();
  #number = 0;

  constructor(namespace: string, uid: number) {
    const user = ['setpriv', `--reuid=${uid}`, '--clear-groups', '--', process.execPath, '-e', AGENT];
    this.#child = spawn('ip', ['netns', 'exec', namespace, ...user], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.pid = this.#child.pid!;
    this.#child.stderr.on('data', (text: Buffer) => process.stderr.write(text));
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { number, answer } = JSON.parse(line) as { number: number; answer: string };
      this.#waiting.get(number)?.(answer);
      this.#waiting.delete(number);
    });
  }

  #ask(question: object): Promise<string> {
    const number = ++this.#number;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no answer to ${JSON.stringify(question)}`)),
        ANSWER_TIMEOUT_MS,
      );
      this.#waiting.set(number, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      this.#child.stdin.write(`${JSON.stringify({ ...question, number })}\n`);
    });
  }

  /** Listens, and throws unless that worked. */
  async listen(host: string, port: number, label: string): Promise<void> {
    const answer = await this.#ask({ op: 'listen', host, port, label });
    if (answer !== 'listening') throw new Error(`listen ${host} ${port}: ${answer}`);
  }

  /** Connects and gives the label of who answers, or the error code. */
  probe(host: string, port: number): Promise<string> {
    return this.#ask({ op: 'probe', host, port });
  }

  /** As `probe`, where silence is due: `timeout` comes sooner. */
  silence(host: string, port: number): Promise<string> {
    return this.#ask({ op: 'probe', host, port, patience: SILENCE_MS });
  }

  /** Connects so many times, 32 at once; how often each answer came. */
  async many(host: string, port: number, count: number): Promise<Readonly<Record<string, number>>> {
    return JSON.parse(await this.#ask({ op: 'many', host, port, count })) as Record<string, number>;
  }

  /** Sends datagrams and gives the error code that comes back, or `timeout`. */
  udp(host: string, port: number): Promise<string> {
    return this.#ask({ op: 'udp', host, port });
  }

  /** Begins or ends to send empty datagrams to a port of loopback, both families, ten a second. */
  beat(port: number, on: boolean): Promise<string> {
    return this.#ask({ op: 'beat', port, on });
  }

  /** Opens a connection that stays; gives the label of who answers. */
  hold(id: string, host: string, port: number): Promise<string> {
    return this.#ask({ op: 'hold', id, host, port });
  }

  /** Sends a line on a connection that stays; `still-here` when the echo comes back. */
  talk(id: string): Promise<string> {
    return this.#ask({ op: 'talk', id });
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin.end();
    await gone;
  }
}

/** User of applications in these tests. */
const APPLICATION_UID = 1500;
/** User of the daemon in these tests. */
export const DAEMON_UID = 990;

/** A network namespace with a runner for commands inside it. Removed by `remove`. */
export class Namespace {
  readonly name: string;
  readonly runner: CommandRunner;
  readonly #agents: Agent[] = [];

  /** `wrap` goes before every program that the runner runs, such as `setpriv …`. */
  constructor(name: string, wrap: readonly string[] = []) {
    this.name = name;
    try {
      sh('ip', 'netns', 'del', name);
    } catch {
      // It was not there, which is as it should be.
    }
    sh('ip', 'netns', 'add', name);
    this.ip('link', 'set', 'lo', 'up');
    this.runner = this.runnerWith(wrap);
  }

  runnerWith(wrap: readonly string[]): CommandRunner {
    return {
      run: (command) =>
        plainRunner.run({
          ...command,
          program: 'ip',
          args: ['netns', 'exec', this.name, ...wrap, command.program, ...command.args],
        }),
    };
  }

  /** `ip` inside. */
  ip(...args: string[]): string {
    return sh('ip', '-n', this.name, ...args);
  }

  /** Any program inside. */
  exec(program: string, ...args: string[]): string {
    return sh('ip', 'netns', 'exec', this.name, program, ...args);
  }

  address(device: string, ...addresses: string[]): void {
    this.ip('link', 'set', device, 'up');
    for (const address of addresses) {
      this.ip('addr', 'add', address, 'dev', device, ...(address.includes(':') ? ['nodad'] : []));
    }
  }

  agent(uid = APPLICATION_UID): Agent {
    const agent = new Agent(this.name, uid);
    this.#agents.push(agent);
    return agent;
  }

  async remove(): Promise<void> {
    for (const agent of this.#agents) await agent.stop();
    sh('ip', 'netns', 'del', this.name);
  }
}

/** A host under test, a host with servers, and a container on a bridge of the host under test. */
export interface Topology {
  readonly host: Namespace;
  readonly server: Namespace;
  readonly container: Namespace;
  remove(): Promise<void>;
}

/** Name of the bridge in the host under test. */
export const BRIDGE = 'mncapbr0';

/**
 * host 10.77.0.1, fd77::1 ── server 10.77.0.2–4, fd77::2–3; container 10.78.0.2, fd78::2 ── bridge 10.78.0.1,
 * fd78::1 of the host, which forwards. Without `container` the bridge is left out.
 */
export function buildTopology(tag: string): Topology {
  const host = new Namespace(`mncap-${tag}-h`);
  const server = new Namespace(`mncap-${tag}-s`);
  const container = new Namespace(`mncap-${tag}-c`);
  host.ip('link', 'add', 'h0', 'type', 'veth', 'peer', 'name', 's0', 'netns', server.name);
  host.address('h0', '10.77.0.1/24', 'fd77::1/64');
  server.address('s0', '10.77.0.2/24', '10.77.0.3/24', '10.77.0.4/24', 'fd77::2/64', 'fd77::3/64');
  host.ip('link', 'add', BRIDGE, 'type', 'bridge');
  host.ip('link', 'add', 'b0', 'type', 'veth', 'peer', 'name', 'c0', 'netns', container.name);
  host.ip('link', 'set', 'b0', 'master', BRIDGE);
  host.ip('link', 'set', 'b0', 'up');
  host.address(BRIDGE, '10.78.0.1/24', 'fd78::1/64');
  container.address('c0', '10.78.0.2/24', 'fd78::2/64');
  container.ip('route', 'add', 'default', 'via', '10.78.0.1');
  container.ip('-6', 'route', 'add', 'default', 'via', 'fd78::1');
  server.ip('route', 'add', '10.78.0.0/24', 'via', '10.77.0.1');
  server.ip('-6', 'route', 'add', 'fd78::/64', 'via', 'fd77::1');
  host.exec('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  return {
    host,
    server,
    container,
    remove: async () => {
      for (const namespace of [container, host, server]) await namespace.remove();
    },
  };
}
