import { accessSync, constants } from 'node:fs';
import { replaceImage } from '../../io/exec.ts';
import { listenDescriptors } from '../../io/listen-fds.ts';
import { findUser } from '../user.ts';

const SETPRIV = '/usr/bin/setpriv';
/** What the supervisor keeps: rules need NET_ADMIN; iptables-legacy asks for NET_RAW as well. */
const KEPT = '+net_admin,+net_raw';

/**
 * Started as root, goes on as the daemon's user with the two capabilities that rules need, in the same process. Under
 * systemd the unit has done so already, and nothing happens here.
 */
export function dropRoot(user: string, environment: NodeJS.ProcessEnv): void {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = findUser(user);
  if (uid === 0) return;
  accessSync(SETPRIV, constants.X_OK);
  const options = [
    `--reuid=${uid}`,
    `--regid=${gid}`,
    '--clear-groups',
    '--no-new-privs',
    `--inh-caps=-all,${KEPT}`,
    `--ambient-caps=${KEPT}`,
    `--bounding-set=-all,${KEPT}`,
  ];
  const defined = Object.entries(environment).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  const [program, ...rest] = process.argv;
  replaceImage(
    SETPRIV,
    [...options, '--', program!, ...process.execArgv, ...rest],
    Object.fromEntries(defined),
    listenDescriptors(environment, process.pid),
  );
}
