import { expect, test } from 'vitest';
import { findCgroupMount } from '../../../src/io/cgroup-mount.ts';

const V1 = '35 31 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd';
const PART = '41 31 0:38 /lab /sys/fs/cgroup/unified rw shared:9 - cgroup2 none rw';

test('finds a pure, a hybrid and a nested hierarchy, and none', () => {
  expect(findCgroupMount(`${V1}\n30 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n`)).toEqual({
    directory: '/sys/fs/cgroup',
    prefix: '',
  });
  expect(findCgroupMount(`${V1}\n${PART}`)).toEqual({ directory: '/sys/fs/cgroup/unified', prefix: 'lab' });
  expect(findCgroupMount('41 31 0:38 /../.. /sys/fs/cgroup rw - cgroup2 none rw')).toBeUndefined();
  expect(findCgroupMount(`${V1}\n\ngarbage - cgroup2`)).toBeUndefined();
});

test('prefers all of it to a part, and reads names with blanks', () => {
  const all = '35 25 0:29 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:10 - cgroup2 cgroup2 rw';
  expect(findCgroupMount(`${PART}\n${all}`)).toEqual({ directory: '/sys/fs/cgroup/uni fied', prefix: '' });
});
