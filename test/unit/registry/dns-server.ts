import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';

/** A free UDP port of loopback. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

/**
 * A real name server (dnsmasq) of the zone `test`, at one UDP port. dnsmasq takes other records only by a new start, so
 * the port belongs to a relay that goes over to the next process once that one answers. What an answer is can be bent.
 */
export class DnsServer {
  port = 0;
  /** Questions that have come in. */
  questions = 0;
  /** Nothing is answered any more. */
  silent = false;
  /** What is sent instead of an answer. */
  bend: (answer: Buffer) => Buffer = (answer) => answer;
  #relay: Socket | undefined;
  #behind: { readonly port: number; readonly process: ChildProcess } | undefined;
  readonly #asking = new Set<Socket>();

  async listen(): Promise<void> {
    const relay = createSocket('udp4');
    this.#relay = relay;
    relay.bind(this.port, '127.0.0.1');
    await once(relay, 'listening');
    this.port = relay.address().port;
    relay.on('message', (question, from) => {
      this.questions++;
      const behind = this.#behind;
      if (this.silent || behind === undefined) return;
      const asking = createSocket('udp4');
      this.#asking.add(asking);
      const done = () => {
        if (this.#asking.delete(asking)) asking.close();
      };
      setTimeout(done, 2000).unref();
      asking.on('error', done);
      asking.on('message', (answer) => {
        done();
        if (this.#relay === relay) relay.send(this.bend(answer), from.port, from.address);
      });
      asking.send(question, behind.port, '127.0.0.1');
    });
  }

  /** Nobody is at the port any more. */
  async close(): Promise<void> {
    const relay = this.#relay;
    this.#relay = undefined;
    if (relay !== undefined) await new Promise<void>((resolve) => relay.close(resolve));
  }

  /** The zone has exactly these records, as options of dnsmasq. */
  async become(records: readonly string[]): Promise<void> {
    const next = await this.#begin(records);
    const before = this.#behind;
    this.#behind = next;
    await end(before?.process);
  }

  async #begin(records: readonly string[]): Promise<{ port: number; process: ChildProcess }> {
    const fixed = [
      '--keep-in-foreground',
      '--conf-file=/dev/null',
      '--no-hosts',
      '--no-resolv',
      '--pid-file',
    ];
    const user = process.getuid?.() === 0 ? ['--user=root'] : [];
    const more = ['--local=/test/', '--txt-record=ready.test,yes', ...user, ...records];
    for (let attempt = 1; ; attempt++) {
      const port = await freePort();
      const where = [`--port=${port}`, '--listen-address=127.0.0.1', '--bind-interfaces'];
      const child = spawn('dnsmasq', [...fixed, ...where, ...more], { stdio: 'inherit' });
      const failed = new Promise<never>((_, reject) => {
        child.once('error', reject);
        child.once('exit', (code) => reject(new Error(`dnsmasq ended with ${code}`)));
      });
      failed.catch(() => undefined);
      try {
        await Promise.race([this.#answers(port), failed]);
        return { port, process: child };
      } catch (error) {
        await end(child);
        // The port was free for UDP, and when it was looked at: dnsmasq ends with 2 where it is taken meanwhile.
        if (child.exitCode !== 2 || attempt === 5) throw error;
      }
    }
  }

  /** Ends the processes as well. */
  async stop(): Promise<void> {
    await this.close();
    for (const asking of this.#asking) asking.close();
    this.#asking.clear();
    await end(this.#behind?.process);
    this.#behind = undefined;
  }

  async #answers(port: number): Promise<void> {
    for (let i = 0; ; i++) {
      const resolver = new Resolver({ timeout: 100, tries: 1 });
      resolver.setServers([`127.0.0.1:${port}`]);
      try {
        await resolver.resolveTxt('ready.test');
        return;
      } catch (error) {
        if (i === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child?.pid === undefined || child.exitCode !== null) return;
  const gone = once(child, 'exit');
  child.kill();
  await gone;
}
