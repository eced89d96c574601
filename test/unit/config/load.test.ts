import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type ConfigSources, loadConfig } from '../../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../../src/config/problem.ts';

const directory = mkdtempSync(join(tmpdir(), 'mncli-'));
afterAll(() => rmSync(directory, { recursive: true }));

const file = '/etc/mesh-node/test.yaml';

function messages(sources: ConfigSources): string[] {
  try {
    loadConfig(sources);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map(formatProblem);
    throw error;
  }
  return [];
}

describe('defaults', () => {
  it.each(['', '# nothing\n', '{}', 'capture:\n', 'registries:\n', '\ufeff'])('hold for %j', (text) => {
    const config = loadConfig({ text });
    expect(config.capture.port).toBe(15001);
    expect(config.tunnel.initialWindow).toBe(256 * 1024);
    expect(config.daemon.drainTimeout).toBe(30_000);
  });

  it('hold when the default file does not exist, but a named file must', () => {
    const missing = join(directory, 'missing.yaml');
    expect(messages({ file: missing })).toEqual([
      `${missing}: found no such file, expected the configuration file that was named`,
    ]);
    expect(messages({ env: { MESH_NODE_CONFIG: missing } })).toHaveLength(1);
    expect(messages({ file: directory })[0]).toContain('cannot be read (EISDIR)');
  });

  it('are frozen all the way down', () => {
    const config = loadConfig({ text: 'zones: [{name: b, gateways: [{node: g, address: 10.0.0.1:15008}]}]' });
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.zones[0]!.gateways[0])).toBe(true);
    expect(() => Object.assign(config.tunnel, { port: 1 })).toThrow(TypeError);
  });
});

describe('precedence', () => {
  const text = 'capture: {mode: services}\ntunnel: {port: 1001}\n';
  it('is file < environment < flag', () => {
    const path = join(directory, 'a.yaml');
    writeFileSync(path, text);
    const env = { MESH_NODE_CAPTURE_MODE: 'all', MESH_NODE_TUNNEL_PORT: '1002', PATH: '/bin' };
    expect(loadConfig({ file: path }).tunnel.port).toBe(1001);
    expect(loadConfig({ file: path, env }).tunnel.port).toBe(1002);
    const config = loadConfig({ file: path, env, flags: ['tunnel.port=1', 'tunnel.port=1003'] });
    expect(config.tunnel.port).toBe(1003);
    expect(config.capture.mode).toBe('all');
  });

  it('reads numbers, words and both where the schema allows both', () => {
    expect(loadConfig({ text: '', flags: ['daemon.workers=3'] }).daemon.workers).toBe(3);
    expect(loadConfig({ text: '', flags: ['daemon.workers=auto'] }).daemon.workers).toBe('auto');
    expect(loadConfig({ text: '', flags: ['node.name=7'] }).node.name).toBe('7');
    expect(loadConfig({ text: '', env: { MESH_NODE_ZONE_AGENT_MAX_HOPS: '3' } }).zoneAgent.maxHops).toBe(3);
  });

  it('names the variable or flag that is wrong', () => {
    const env = {
      MESH_NODE_CAPTURE_MODE: 'al',
      MESH_NODE_TUNEL_PORT: '1',
      MESH_NODE_REGISTRIES: 'x',
    };
    expect(messages({ text: '', env, flags: ['capture.mod=1', 'x', 'daemon.workers=20'] })).toEqual([
      'MESH_NODE_CAPTURE_MODE: capture.mode: found text "al", expected services, all, observe or off',
      '--set daemon.workers=20: daemon.workers: found number 20, expected auto or integer 1–16',
      'MESH_NODE_TUNEL_PORT: found MESH_NODE_TUNEL_PORT, expected the name of a setting (did you mean MESH_NODE_TUNNEL_PORT?)',
      'MESH_NODE_REGISTRIES: found MESH_NODE_REGISTRIES, expected the name of a setting',
      '--set capture.mod=1: found capture.mod, expected the name of a setting with one value (did you mean capture.mode?)',
      '--set x: found no value, expected KEY=VALUE',
    ]);
  });

  it('leaves a section that is no map to the schema', () => {
    expect(messages({ file, text: 'capture: [1]', flags: ['capture.mode=all'] })).toEqual([
      `${file}:1:10: capture: found a list, expected map`,
    ]);
  });
});

describe('errors in the file', () => {
  it('are all listed, with place, value, expectation and suggestion', () => {
    const text = [
      'captur:',
      '  mode: all',
      'tunnel:',
      '  prot: 1',
      '  port: 70000',
      '  idleTimeout: 5 minutes',
      '  keepaliveInterval: 9999h',
      'registries:',
      '  - type: x',
      '  - type: file',
      '    directry: /x',
      '  - 3',
      'zones:',
      '  - name: a',
      'node: {name: Not A Name, zone: 3}',
      'telemetry: {accessLog: here, metricsListen: "15090", logLevel: loud}',
    ].join('\n');
    const found = messages({ file, text });
    expect(found).toEqual([
      expect.stringMatching(/^\S+:1:1: captur: found a key that is not known, .*did you mean capture\?\)$/),
      expect.stringMatching(/^\S+:4:3: tunnel\.prot: found a key .*did you mean port\?\)$/),
      `${file}:5:9: tunnel.port: found number 70000, expected integer 1–65535`,
      `${file}:6:16: tunnel.idleTimeout: found text "5 minutes", expected a duration such as 250ms, 5s, 10m or 1h`,
      `${file}:7:22: tunnel.keepaliveInterval: found text "9999h", expected a duration from 1ms to 576h`,
      expect.stringMatching(/^\S+:9:11: registries\[0\]\.type: found text "x", expected file or serf/),
      expect.stringMatching(/^\S+:11:5: registries\[1\]\.directry: .*did you mean directory\?\)$/),
      expect.stringMatching(
        /^\S+:12:5: registries\[2\]: found number 3, expected map with type file, map with type serf/,
      ),
      expect.stringMatching(/^\S+:14:5: zones\[0\]\.gateways: found nothing, expected list/),
      `${file}:15:14: node.name: found text "Not A Name", expected a node name: lower-case letters, digits, - and .`,
      `${file}:15:32: node.zone: found number 3, expected zone name`,
      `${file}:16:24: telemetry.accessLog: found text "here", expected stdout, off or an absolute path`,
      `${file}:16:45: telemetry.metricsListen: found text "15090", expected ADDRESS:PORT, for example 10.0.0.1:15008 or [fd00::1]:15008`,
      `${file}:16:64: telemetry.logLevel: found text "loud", expected trace, debug, info, warn or error`,
    ]);
  });

  it.each([
    ['capture: {port: 1, port: 2}', ':1:20: found "port" again, expected each key once'],
    ['a:\n\tb: 1', ':2:1: found nothing, expected spaces for indentation, not tabs'],
    ['{}\n---\n{}\n', ', expected one document'],
    ['capture: !foo {}', ':1:10: found "!foo", expected plain YAML without tags'],
    [`a: &x [1]\nb: [${'*x,'.repeat(200)}]`, 'Excessive alias count'],
    ['a: *nobody', 'Unresolved alias'],
    ['a: *', ':1:4: found "*", expected valid YAML: an alias has a name behind its *; a text'],
    ['[1]', ':1:1: found a list, expected map'],
    ['? [a]\n: 1', 'all keys must be strings'],
    ['__proto__: {port: 1}', ':1:1: __proto__: found a key that is not known'],
    ['constructor: 1', ':1:1: constructor: found a key that is not known'],
    ['tunnel: {port: "15008"}', 'tunnel.port: found text "15008", expected integer 1–65535'],
    ['tunnel: {port: 1.5}', 'tunnel.port: found number 1.5, expected integer'],
    ['tunnel: {port:}', 'tunnel.port: found an empty value'],
  ])('%j', (text, expected) => {
    const found = messages({ file, text });
    expect(found.length).toBeGreaterThan(0);
    expect(found[0]).toContain(expected);
  });

  it('finds the byte that is not UTF-8', () => {
    expect(messages({ file, text: Buffer.from([0x61, 0x3a, 0x0a, 0x62, 0xff]) })).toEqual([
      `${file}:2:2: found bytes that are not UTF-8, expected a text file in UTF-8`,
    ]);
  });

  it.each([
    ['flow sequences', '['.repeat(5000)],
    ['flow maps, which made V8 abort the process', '{a: '.repeat(5000)],
    ['compact sequences', '- '.repeat(5000)],
    ['compact keys', '? '.repeat(5000)],
    ['indentation', Array.from({ length: 500 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
  ])('refuses nesting by %s', (_, text) => {
    expect(messages({ text })[0]).toMatch(/deeper nesting, expected at most 64 levels$/);
  });

  it('bounds the size of the file, and the number of problems', () => {
    expect(messages({ text: 'x'.repeat(3_000_000) })[0]).toContain('3000000 bytes, expected at most');
    const path = join(directory, 'big.yaml');
    writeFileSync(path, 'x'.repeat(3_000_000));
    expect(messages({ file: path })[0]).toContain('3000000 bytes, expected at most');
    const keys = Array.from({ length: 50_000 }, (_, i) => `k${i}: 1`).join('\n');
    expect(messages({ text: keys })).toHaveLength(20);
    expect(messages({ text: 'k: 1\n'.repeat(50_000) })).toHaveLength(20);
  });
});

describe('keys that must fit each other', () => {
  it.each([
    ['tunnel: {port: 15001}', 'tunnel.port: found port 15001, which capture.port has'],
    ['proxy: {enabled: true, port: 15008}', 'proxy.port: found port 15008, which tunnel.port has'],
    ['telemetry: {metricsListen: "127.0.0.1:15008"}', 'telemetry.metricsListen: found port 15008'],
    ['tunnel: {maxWindow: 1KiB}', 'tunnel.initialWindow: found more than tunnel.maxWindow'],
    ['guard: {returnAfter: 10m}', 'guard.returnAfter: found more than guard.returnMax'],
    ['guard: {window: 5m}', 'guard.window: found 300000ms, expected 1s to 1m'],
    ['cache: {freshFor: 1h}', 'cache.freshFor: found more than cache.staleFor'],
    [
      `names: {domain: ${'abcdefgh.'.repeat(14)}mesh}`,
      'names.domain: found 130 characters, expected at most 126',
    ],
    ['daemon: {hangTimeout: 400ms}', 'daemon.hangTimeout: found 400ms, expected at least two times'],
    ['zones: [{name: default, gateways: [{node: a, address: "1.1.1.1:1"}]}]', 'the zone of this node'],
    [
      'zones: [{name: b, gateways: [{node: a, address: "1.1.1.1:1"}, {node: a, address: "1.1.1.2:1"}]}]',
      'zones[0].gateways[1].node: found a again',
    ],
    [
      'registries: [{type: dns, services: [{name: a, srv: a.test}, {name: a, srv: b.test}]}]',
      'registries[0].services[1].name: found a again',
    ],
    [
      'registries: [{type: consul}, {type: consul, tags: [a]}]',
      'registries[1]: found consul 127.0.0.1:8500 again',
    ],
    [
      'registries: [{type: zookeeper, servers: ["z:1"]}, {type: zookeeper, servers: ["z:1"], names: path}]',
      'registries[1]: found zookeeper z:1/discovery again',
    ],
    [
      'registries: [{type: file}, {type: file}]',
      'registries[1]: found file /etc/mesh-node/catalogue.d again',
    ],
  ])('%s', (text, expected) => {
    const found = messages({ text });
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(expected);
  });
});
