import { describe, expect, test } from 'vitest';
import { cgroupName } from '../../../src/caller/cgroup-name.ts';

const ID = '0123456789abcdef'.repeat(4);
const SHORT = '0123456789ab';

describe('units', () => {
  test.each([
    ['/system.slice/orders.service', 'orders.service'],
    ['/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
    ['/system.slice/orders.service/worker', 'orders.service'],
    // What a unit makes below itself may have any name.
    ['/system.slice/rogue.service/orders.service', 'rogue.service'],
    ['/system.slice/rogue.service/system.slice/orders.service', 'rogue.service'],
    [`/system.slice/rogue.service/docker-${ID}.scope`, 'rogue.service'],
    ['/shop.slice/shop-web.slice/orders.service', 'orders.service'],
    ['/init.scope', 'init.scope'],
    ['/machine.slice/machine-build.scope', 'machine-build.scope'],
    ['/system.slice/db\\x2dmain.socket', 'db\\x2dmain.socket'],
  ])('%s', (path, unit) => {
    expect(cgroupName(path)).toEqual({ unit });
  });
});

describe('containers', () => {
  test.each([
    `/system.slice/docker-${ID}.scope`,
    `/system.slice/docker-${ID}.scope/init`,
    `/docker/${ID}`,
    `/docker/${ID}/nested/${'f'.repeat(64)}`,
    `/machine.slice/libpod-${ID}.scope`,
    `/machine.slice/libpod-${ID}.scope/container`,
    `/libpod_parent/libpod-${ID}`,
    `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice/cri-containerd-${ID}.scope`,
    `/kubepods.slice/kubepods-podabc.slice/crio-${ID}.scope`,
    `/kubepods/burstable/podabc/${ID}`,
  ])('%s', (path) => {
    expect(cgroupName(path)).toEqual({ container: SHORT });
  });
});

describe('nothing', () => {
  test.each([
    '',
    '/',
    '/system.slice',
    '/user.slice',
    '/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service',
    '/user.slice/user-1000.slice/session-3.scope',
    `/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${ID}.scope`,
    '/orders.service', // not in a slice: systemd did not make it
    '/lab/system.slice/orders.service',
    '/docker',
    '/docker/short',
    '/kubepods/burstable',
    `/system.slice/docker-${ID}`.slice(0, 40),
    '/system.slice/or ders.service',
    `/system.slice/${'x'.repeat(260)}.service`,
    '/system.slice/orders',
  ])('%s', (path) => {
    expect(cgroupName(path)).toEqual({});
  });
});
