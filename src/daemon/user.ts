import { readFileSync } from 'node:fs';
import { MeshError } from '../model/errors.ts';

/** Numeric ids of a user of this host. */
export interface UserIds {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The ids of a user, by name or number. Read from /etc/passwd and never through NSS: a directory service that does not
 * answer must not keep the daemon from starting (and `iptables -m owner` is given numbers for the same reason).
 */
export function findUser(user: string, passwd: string = readFileSync('/etc/passwd', 'utf8')): UserIds {
  for (const line of passwd.split('\n')) {
    const [name, , uid, gid] = line.split(':');
    if (uid !== undefined && gid !== undefined && (name === user || uid === user)) {
      return { uid: Number(uid), gid: Number(gid) };
    }
  }
  throw new MeshError(
    'configuration',
    'operator',
    `daemon.user: no user ${user} in /etc/passwd; scripts/install makes it`,
  );
}
