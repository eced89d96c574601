import { readFileSync } from 'node:fs';
import { passwdEntries } from '../io/passwd.ts';
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
  for (const { name, uid, gid } of passwdEntries(passwd)) {
    if (name === user || String(uid) === user) return { uid, gid };
  }
  throw new MeshError(
    'configuration',
    'operator',
    `daemon.user: no user ${user} in /etc/passwd; scripts/install makes it`,
  );
}
