import { direct } from './direct.ts';
import { haproxy, haproxyBulk } from './haproxy.ts';
import { meshNode } from './mesh-node.ts';
import { nginx } from './nginx.ts';
import { nginxStream } from './nginx-stream.ts';
import { redsocks } from './redsocks.ts';
import type { Subject } from './subject.ts';
import { v2ray } from './v2ray.ts';

/** Everything that can be compared, in the order of the table. */
export const subjects: readonly Subject[] = [
  direct,
  haproxy,
  haproxyBulk,
  meshNode,
  nginx,
  nginxStream,
  redsocks,
  v2ray,
];
