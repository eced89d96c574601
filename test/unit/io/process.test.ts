import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { socketInode } from '../../../src/io/bound-socket.ts';
import {
  capabilityNumbers,
  clearAmbientCapabilities,
  effectiveCapabilities,
  hasCapability,
  withAmbientCapabilities,
} from '../../../src/io/capabilities.ts';
import { receiveDescriptors } from '../../../src/io/descriptor-passing.ts';
import {
  closeDescriptor,
  countDescriptors,
  raiseDescriptorLimit,
  setCloseOnExec,
} from '../../../src/io/descriptors.ts';
import { reapChild } from '../../../src/io/exec.ts';
import * as libc from '../../../src/io/libc.ts';
import { takeListenDescriptors } from '../../../src/io/listen-fds.ts';
import { ServiceNotifier, watchdogInterval } from '../../../src/io/notify.ts';
import { createSocketPair } from '../../../src/io/socketpair.ts';

const directory = mkdtempSync(join(tmpdir(), 'mesh-io-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('sd_notify', () => {
  /** A datagram socket, bound; Node has none for AF_UNIX. */
  const manager = (name: Buffer) => {
    const fd = libc.socket(1, 2 | 0o4000, 0);
    const address = new Uint8Array(2 + name.length);
    address[0] = 1;
    address.set(name, 2);
    expect(libc.bind(fd, address, address.length)).toBe(0);
    const buffer = new Uint8Array(4096);
    return {
      fd,
      read() {
        const count = libc.recv(fd, buffer, buffer.length, 0);
        return count < 0 ? undefined : Buffer.from(buffer.subarray(0, count)).toString();
      },
      close: () => closeDescriptor(fd),
    };
  };

  test.each([
    ['a path', join(directory, 'notify')],
    ['an abstract name', `@mesh-io-${process.pid}`],
  ])('reaches the manager by %s', (_what, path) => {
    const name = Buffer.from(path.startsWith('@') ? path : `${path}\0`);
    if (path.startsWith('@')) name[0] = 0;
    const systemd = manager(name);
    const notifier = new ServiceNotifier(path);
    expect(notifier.tell('ready', 'serving\n1 worker')).toBe(true);
    expect(systemd.read()).toBe('READY=1\nSTATUS=serving 1 worker\n');
    notifier.tell('stopping');
    expect(systemd.read()).toBe('STOPPING=1\n');
    notifier.tell('watchdog');
    expect(systemd.read()).toBe('WATCHDOG=1\n');
    notifier.tell(undefined, 'all well');
    expect(systemd.read()).toBe('STATUS=all well\n');
    const before = process.hrtime.bigint() / 1000n;
    notifier.tell('reloading');
    const [, at] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)\n$/.exec(systemd.read()!)!;
    expect(BigInt(at!)).toBeGreaterThanOrEqual(before);
    expect(BigInt(at!)).toBeLessThanOrEqual(process.hrtime.bigint() / 1000n);
    expect(notifier.patience(1500)).toBe(true);
    expect(systemd.read()).toBe('WATCHDOG_USEC=1500000\nWATCHDOG=1\n');
    expect(notifier.forget('tunnel-0')).toBe(true);
    expect(systemd.read()).toBe('FDSTOREREMOVE=1\nFDNAME=tunnel-0\n');
    // The descriptor comes along, as a copy.
    const [mine, other] = createSocketPair();
    expect(notifier.store('tunnel-0', mine)).toBe(true);
    const stored = receiveDescriptors(systemd.fd);
    if (typeof stored === 'string') throw new Error(stored);
    expect(Buffer.from(stored.bytes).toString()).toBe('FDSTORE=1\nFDNAME=tunnel-0\nFDPOLL=0\n');
    expect(stored.descriptors.map(socketInode)).toEqual([socketInode(mine)]);
    for (const each of [mine, other, ...stored.descriptors]) closeDescriptor(each);
    systemd.close();
    expect(notifier.tell('ready')).toBe(false);
  });

  test('without a manager nothing is sent', () => {
    expect(new ServiceNotifier(undefined).tell('ready')).toBe(false);
    expect(new ServiceNotifier('').tell('ready')).toBe(false);
  });
  test.each(['relative', `/${'x'.repeat(108)}`])('%s is no address', (path) => {
    expect(() => new ServiceNotifier(path)).toThrow('NOTIFY_SOCKET');
  });
  test('the watchdog wants half of its time, from the process it names', () => {
    expect(watchdogInterval({ WATCHDOG_USEC: '4000000' }, 7)).toBe(2000);
    expect(watchdogInterval({ WATCHDOG_USEC: '4000000', WATCHDOG_PID: '7' }, 7)).toBe(2000);
    expect(watchdogInterval({ WATCHDOG_USEC: '4000000', WATCHDOG_PID: '8' }, 7)).toBeUndefined();
    expect(watchdogInterval({}, 7)).toBeUndefined();
    expect(watchdogInterval({ WATCHDOG_USEC: 'x' }, 7)).toBeUndefined();
  });
});

describe('socket activation', () => {
  test('descriptors that are meant for another process are left alone', () => {
    const environment = { LISTEN_FDS: '2', LISTEN_PID: '1', LISTEN_FDNAMES: 'a:b', HOME: '/' };
    expect(takeListenDescriptors(environment, 2)).toEqual([]);
    expect(environment).toEqual({ HOME: '/' });
  });
  test('without the variables there are none', () => {
    expect(takeListenDescriptors({}, process.pid)).toEqual([]);
    expect(takeListenDescriptors({ LISTEN_FDS: 'many', LISTEN_PID: '5' }, 5)).toEqual([]);
  });
});

describe('descriptors', () => {
  test('a socket pair is connected, and works as net.Socket', async () => {
    const before = countDescriptors();
    const [a, b] = createSocketPair();
    expect(countDescriptors()).toBe(before + 2);
    const left = new Socket({ fd: a });
    const right = new Socket({ fd: b });
    left.end('hello');
    const chunks: Buffer[] = [];
    for await (const chunk of right) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).toBe('hello');
  });
  test('close-on-exec can be set and cleared', () => {
    const [a, b] = createSocketPair();
    const inherited = () => (libc.fcntl(a, 1, 0) & 1) === 0;
    expect(inherited()).toBe(false);
    setCloseOnExec(a, false);
    expect(inherited()).toBe(true);
    setCloseOnExec(a, true);
    expect(inherited()).toBe(false);
    closeDescriptor(a);
    closeDescriptor(b);
    expect(() => setCloseOnExec(a, true)).toThrow('EBADF');
  });
  test('the soft limit becomes the hard one', () => {
    const limit = raiseDescriptorLimit();
    const [, hard] = /Max open files\s+\d+\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))!;
    expect(limit).toBe(Number(hard));
  });
});

describe('capabilities', () => {
  const ambientOfChild = () =>
    /CapAmb:\s*([0-9a-f]+)/.exec(execFileSync('cat', ['/proc/self/status'], { encoding: 'utf8' }))![1]!;
  const ofNobody = (start: (run: () => string) => string) =>
    start(() => {
      const result = spawnSync('cat', ['/proc/self/status'], { encoding: 'utf8', uid: 65534, gid: 65534 });
      return /CapEff:\s*([0-9a-f]+)/.exec(result.stdout)![1]!;
    });

  test('are read of this process', () => {
    expect(effectiveCapabilities()).toBeGreaterThan(0n);
    expect(hasCapability('CAP_NET_ADMIN')).toBe(true);
  });
  test('are given to one child only', () => {
    clearAmbientCapabilities();
    expect(BigInt(`0x${ambientOfChild()}`)).toBe(0n);
    const during = withAmbientCapabilities(['CAP_NET_ADMIN', 'CAP_NET_RAW'], ambientOfChild);
    expect(BigInt(`0x${during}`)).toBe(
      (1n << BigInt(capabilityNumbers.CAP_NET_ADMIN)) | (1n << BigInt(capabilityNumbers.CAP_NET_RAW)),
    );
    expect(BigInt(`0x${ambientOfChild()}`)).toBe(0n);
    expect(BigInt(`0x${ofNobody((run) => run())}`)).toBe(0n);
  });
  test('are taken away when the start fails', () => {
    expect(() =>
      withAmbientCapabilities(['CAP_NET_ADMIN'], () => {
        throw new Error('no such program');
      }),
    ).toThrow('no such program');
    expect(BigInt(`0x${ambientOfChild()}`)).toBe(0n);
  });
});

describe('a process of its own', () => {
  const root = join(directory, 'built');

  /** What has to replace a process, or inherit from one, cannot run in the test's own: io/ and model/ as JavaScript. */
  beforeAll(() => {
    for (const room of ['io', 'model']) {
      mkdirSync(join(root, 'src', room), { recursive: true });
      for (const file of readdirSync(resolve('src', room))) {
        const { outputText } = ts.transpileModule(readFileSync(resolve('src', room, file), 'utf8'), {
          compilerOptions: {
            module: ts.ModuleKind.ESNext,
            target: ts.ScriptTarget.ES2023,
            rewriteRelativeImportExtensions: true,
          },
        });
        writeFileSync(join(root, 'src', room, file.replace(/\.ts$/, '.js')), outputText);
      }
    }
    writeFileSync(join(root, 'package.json'), '{"type":"module"}');
    symlinkSync(resolve('node_modules'), join(root, 'node_modules'));
  });
  const script = (name: string, text: string) => {
    const path = join(root, `${name}.js`);
    writeFileSync(path, text);
    return path;
  };

  test('replaces its image and keeps process id and descriptors', () => {
    const second = script(
      'second',
      `import { writeSync, fstatSync } from 'node:fs';
       import { setCloseOnExec } from './src/io/descriptors.js';
       const [fd, lost, pid] = process.argv.slice(2).map(Number);
       setCloseOnExec(fd, true);
       let gone = false;
       try { gone = !fstatSync(lost).isSocket(); } catch { gone = true; }
       writeSync(1, JSON.stringify({ same: pid === process.pid, kept: fstatSync(fd).isSocket(), gone, env: process.env.MESH_TEST }));`,
    );
    const first = script(
      'first',
      `import { replaceImage } from './src/io/exec.js';
       import { createSocketPair } from './src/io/socketpair.js';
       const [a, b] = createSocketPair();
       try { replaceImage('/nonexistent', [], {}, [a]); } catch (error) { process.stderr.write(error.message); }
       replaceImage(process.execPath, [${JSON.stringify(second)}, String(a), String(b), String(process.pid)], { MESH_TEST: 'yes' }, [a]);`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, [first], { encoding: 'utf8' });
    expect(stderr).toBe('/nonexistent: execve: ENOENT');
    expect(JSON.parse(stdout)).toEqual({ same: true, kept: true, gone: true, env: 'yes' });
  });

  test('takes the descriptors that the manager passes', () => {
    const taker = script(
      'taker',
      `import { takeListenDescriptors } from './src/io/listen-fds.js';
       console.log(JSON.stringify(takeListenDescriptors(process.env, process.pid)), process.env.LISTEN_FDS);`,
    );
    const { stdout } = spawnSync(
      'sh',
      [
        '-c',
        `exec 3</dev/null 4</dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=capture: exec ${process.execPath} ${taker}`,
      ],
      { encoding: 'utf8' },
    );
    expect(stdout.trim()).toBe('[{"fd":3,"name":"capture"},{"fd":4,"name":"unknown"}] undefined');
  });

  test('children that Node does not know are reaped', async () => {
    expect(reapChild(1)).toBe('gone');
    const child = spawn('sleep', ['30']);
    expect(reapChild(child.pid!)).toBeUndefined();
    const reaper = script(
      'reaper',
      `import { reapChild } from './src/io/exec.js';
       const pid = Number(process.argv[2]);
       const timer = setInterval(() => {
         const end = reapChild(pid);
         if (end === undefined) return;
         clearInterval(timer);
         console.log(JSON.stringify(end), reapChild(pid));
       }, 2);`,
    );
    // The shell starts the child and then becomes the reaper: its child is one that Node has never heard of.
    for (const [command, expected] of [
      ['(exit 3) &', '{"code":3} gone'],
      ["sh -c 'kill -9 $$' &", '{"signal":9} gone'],
    ] as const) {
      const { stdout } = spawnSync('sh', ['-c', `${command} exec ${process.execPath} ${reaper} $!`], {
        encoding: 'utf8',
      });
      expect(stdout.trim()).toBe(expected);
    }
    child.kill('SIGKILL');
    await new Promise((done) => child.once('exit', done));
  });
});
